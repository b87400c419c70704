/* http_cases.h - raw bytes and what a strict server makes of them. Rules G-11
 * and S5 of the gateway, campaign C24. Used by the strictness test, by the
 * comparison with other parsers, and as seeds.
 *
 * CASE(name, verdict, bytes): 100..599 is the status of the refusal, 0..9 the
 * number of complete requests, with nothing refused. `/evil` stands where a
 * second request would hide: no case may ever yield it. */

/* clang-format off */
#pragma GCC diagnostic ignored "-Woverlength-strings"

#define HOST "Host: a.example\r\n"
#define GET  "GET / HTTP/1.1\r\n" HOST
#define POST "POST /in HTTP/1.1\r\n" HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define EVIL "GET /evil HTTP/1.1\r\n" HOST "\r\n"
#define X16(s)   s s s s s s s s s s s s s s s s
#define X256(s)  X16(X16(s))
#define X4096(s) X16(X256(s))

#define HTTP_REQUEST_CASES(CASE)                                               \
    /* what must be let in */                                                  \
    CASE(get, 1, GET "\r\n")                                                   \
    CASE(post_length, 1, POST "Content-Length: 5\r\n\r\nhello")                \
    CASE(post_length_0, 1, POST "Content-Length: 0\r\n\r\n")                   \
    CASE(post_leading_zeros, 1, POST "Content-Length: 0005\r\n\r\nhello")      \
    CASE(post_nothing, 1, POST "\r\n")                                         \
    CASE(get_with_body, 1, GET "Content-Length: 2\r\n\r\nhi")                  \
    CASE(chunks, 1, CHUNKED "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")               \
    CASE(chunks_hex, 1, CHUNKED "a\r\n0123456789\r\nA\r\n0123456789\r\n"       \
                                "00\r\n\r\n")                                  \
    CASE(chunk_zeros, 1, CHUNKED "0000000000000005\r\nhello\r\n0\r\n\r\n")     \
    CASE(chunk_extension, 1, CHUNKED "5;a=b;c=\"d\"\r\nhello\r\n0;z\r\n\r\n")  \
    CASE(trailers, 1, CHUNKED "0\r\nA: b\r\nContent-Length: 9\r\nHost: b\r\n"  \
                              "Empty:\r\n\r\n")                                \
    CASE(coding_case, 1, POST "TRANSFER-encoding:\tChUnKeD \r\n\r\n"           \
                              "0\r\n\r\n")                                     \
    CASE(two_in_line, 2, GET "\r\n" GET "\r\n")                                \
    CASE(two_with_bodies, 2, POST "Content-Length: 5\r\n\r\nhello"             \
                             CHUNKED "0\r\n\r\n")                              \
    CASE(body_like_request, 1, POST "Content-Length: 39\r\n\r\n" EVIL)         \
    CASE(chunk_like_request, 1, CHUNKED "27\r\n" EVIL "\r\n0\r\n\r\n")         \
    CASE(http10, 1, "GET / HTTP/1.0\r\n\r\n")                                  \
    CASE(http10_host, 1, "GET / HTTP/1.0\r\n" HOST "\r\n")                     \
    CASE(http10_body, 1, "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")     \
    CASE(own_method, 1, "M-Search!#$%&'*+.^_`|~9 / HTTP/1.1\r\n" HOST "\r\n")  \
    CASE(small_method, 1, "get / HTTP/1.1\r\n" HOST "\r\n")                    \
    CASE(query, 1, "GET /a/b;c?d=e&f=%20?/ HTTP/1.1\r\n" HOST "\r\n")          \
    CASE(query_alone, 1, "GET /? HTTP/1.1\r\n" HOST "\r\n")                    \
    CASE(absolute, 1, "GET http://a.example/x?y HTTP/1.1\r\n" HOST "\r\n")     \
    CASE(absolute_case, 1, "GET HTTP://A.Example HTTP/1.1\r\n" HOST "\r\n")    \
    CASE(absolute_http10, 1, "GET http://a.example/ HTTP/1.0\r\n\r\n")         \
    CASE(asterisk, 1, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n")                    \
    CASE(host_port, 1, "GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")       \
    CASE(host_v6, 1, "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n")             \
    CASE(host_v6_bare, 1, "GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n")     \
    CASE(host_name, 1, "GET / HTTP/1.1\r\nhOST:a_b-c~d%20!$&'()*+;=.x:\r\n\r\n") \
    CASE(value_empty, 1, GET "A:\r\nB: \r\nC:\t \t\r\n\r\n")                   \
    CASE(value_high, 1, GET "A: caf\xc3\xa9 \xff\r\n\r\n")                     \
    CASE(value_tab, 1, GET "A: b\tc\r\n\r\n")                                  \
    CASE(value_colons, 1, GET "A::b:c\r\n\r\n")                                \
    CASE(name_token, 1, GET "!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n")                \
    CASE(expect, 1, POST "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n"   \
                         "hi")                                                 \
    CASE(expect_http10, 1, "GET / HTTP/1.0\r\nExpect: what\r\n\r\n")           \
    CASE(other_length, 1, POST "Content_Length: 42\r\nContent-Length: 2\r\n"   \
                               "\r\nhi")                                       \
    CASE(head_at_limit, 1, GET "A: " X4096("xxx") X256("xxxxxxxxxxxxxxx")      \
            X16("xxxxxxxxxxxxx") "xxxxxxxx\r\n\r\n")                           \
    /* cut short: neither a request nor refused */                             \
    CASE(part_line, 0, "GET / HT")                                             \
    CASE(part_head, 0, GET)                                                    \
    CASE(part_cr, 0, GET "\r")                                                 \
    CASE(part_body, 0, POST "Content-Length: 6\r\n\r\nhello")                  \
    CASE(part_chunk, 0, CHUNKED "6\r\nhello")                                  \
    CASE(part_last, 0, CHUNKED "0\r\n")                                        \
    CASE(part_trailer, 0, CHUNKED "0\r\nA: b\r\n")                             \
    /* ends of lines */                                                        \
    CASE(lf_everywhere, 400, "GET / HTTP/1.1\nHost: a\n\n" EVIL)               \
    CASE(lf_request_line, 400, "GET / HTTP/1.1\n" HOST "\r\n" EVIL)            \
    CASE(lf_field, 400, GET "A: b\n\r\n" EVIL)                                 \
    CASE(lf_in_value, 400, GET "A: b\nContent-Length: 39\r\n\r\n" EVIL)        \
    CASE(lf_end, 400, GET "\n" EVIL)                                           \
    CASE(lf_cr, 400, GET "A: b\n\rC: d\r\n\r\n" EVIL)                          \
    CASE(cr_request_line, 400, "GET / HTTP/1.1\r" HOST "\r\n")                 \
    CASE(cr_alone, 400, "GET / HTTP/1.1\rHost: a\r\r" EVIL)                    \
    CASE(cr_in_target, 400, "GET /\rx HTTP/1.1\r\n" HOST "\r\n")               \
    CASE(cr_in_value, 400, GET "A: b\rContent-Length: 39\r\n\r\n" EVIL)        \
    CASE(cr_in_name, 400, GET "A\rB: c\r\n\r\n")                               \
    CASE(cr_cr_lf, 400, GET "A: b\r\r\n\r\n")                                  \
    CASE(cr_end, 400, GET "\rX\n\r\n")                                         \
    CASE(cr_cr_lf_end, 400, GET "\r\r\n" EVIL)                                 \
    CASE(fold_space, 400, GET "A: b\r\n c\r\n\r\n")                            \
    CASE(fold_tab, 400, GET "A: b\r\n\tc\r\n\r\n")                             \
    CASE(fold_first, 400, "GET / HTTP/1.1\r\n " HOST "\r\n")                   \
    CASE(fold_coding, 400, POST "Transfer-Encoding:\r\n chunked\r\n\r\n"       \
                                "0\r\n\r\n" EVIL)                              \
    CASE(fold_length, 400, POST "Content-Length:\r\n 42\r\n\r\n" EVIL)         \
    CASE(fold_blank, 400, GET "A: b\r\n \r\n\r\n")                             \
    /* bytes that are not allowed in a head */                                 \
    CASE(nul_method, 400, "G\0T / HTTP/1.1\r\n" HOST "\r\n")                   \
    CASE(nul_target, 400, "GET /\0 HTTP/1.1\r\n" HOST "\r\n")                  \
    CASE(nul_name, 400, GET "A\0: b\r\n\r\n")                                  \
    CASE(nul_value, 400, GET "A: b\0c\r\n\r\n")                                \
    CASE(nul_length, 400, POST "Content-Length: 2\0\r\n\r\nhi")                \
    CASE(nul_first, 400, "\0" GET "\r\n")                                      \
    CASE(del_value, 400, GET "A: b\x7f\r\n\r\n")                               \
    CASE(esc_value, 400, GET "A: \x1b[0m\r\n\r\n")                             \
    CASE(vt_value, 400, GET "A: \x0b" "b\r\n\r\n")                             \
    CASE(ff_value, 400, GET "A: b\x0c\r\n\r\n")                                \
    CASE(bell_target, 400, "GET /\x07 HTTP/1.1\r\n" HOST "\r\n")               \
    CASE(tls_hello, 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")       \
    CASE(line_before, 400, "\r\n" GET "\r\n")                                  \
    CASE(line_between, 400, POST "Content-Length: 2\r\n\r\nhi\r\n" GET         \
                                "\r\n")                                        \
    CASE(line_before_twice, 400, "\r\n\r\n" GET "\r\n")                        \
    CASE(space_before, 400, " " GET "\r\n")                                    \
    CASE(lf_before, 400, "\n" GET "\r\n")                                      \
    /* request line */                                                         \
    CASE(target_space, 400, "GET /a b HTTP/1.1\r\n" HOST "\r\n")               \
    CASE(target_tab, 400, "GET /a\tb HTTP/1.1\r\n" HOST "\r\n")                \
    CASE(two_spaces, 400, "GET  / HTTP/1.1\r\n" HOST "\r\n")                   \
    CASE(two_spaces_after, 400, "GET /  HTTP/1.1\r\n" HOST "\r\n")             \
    CASE(tab_separated, 400, "GET\t/\tHTTP/1.1\r\n" HOST "\r\n")               \
    CASE(space_at_end, 400, "GET / HTTP/1.1 \r\n" HOST "\r\n")                 \
    CASE(no_target, 400, "GET HTTP/1.1\r\n" HOST "\r\n")                       \
    CASE(empty_target, 400, "GET  HTTP/1.1\r\n" HOST "\r\n")                   \
    CASE(no_method, 400, " / HTTP/1.1\r\n" HOST "\r\n")                        \
    CASE(method_paren, 400, "G(T / HTTP/1.1\r\n" HOST "\r\n")                  \
    CASE(method_colon, 400, "GET: / HTTP/1.1\r\n" HOST "\r\n")                 \
    CASE(method_high, 400, "G\xc3\x89T / HTTP/1.1\r\n" HOST "\r\n")            \
    CASE(method_slash, 400, "G/T / HTTP/1.1\r\n" HOST "\r\n")                  \
    CASE(http09, 400, "GET /\r\n\r\n")                                         \
    CASE(target_high, 400, "GET /caf\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n")        \
    CASE(target_del, 400, "GET /\x7f HTTP/1.1\r\n" HOST "\r\n")                \
    CASE(target_fragment, 400, "GET /#x HTTP/1.1\r\n" HOST "\r\n")             \
    CASE(target_word, 400, "GET x HTTP/1.1\r\n" HOST "\r\n")                   \
    CASE(target_asterisk, 400, "GET * HTTP/1.1\r\n" HOST "\r\n")               \
    CASE(target_authority, 400, "GET a.example:80 HTTP/1.1\r\n" HOST "\r\n")   \
    CASE(target_scheme, 400, "GET ftp://a.example/ HTTP/1.1\r\n" HOST "\r\n")  \
    CASE(target_other_host, 400, "GET http://b/ HTTP/1.1\r\n" HOST "\r\n")     \
    CASE(target_other_port, 400,                                               \
        "GET http://a.example:81/ HTTP/1.1\r\n" HOST "\r\n")                   \
    CASE(target_user, 400, "GET http://u@a.example/ HTTP/1.1\r\n" HOST "\r\n") \
    CASE(target_no_host, 400, "GET http:///x HTTP/1.1\r\n" HOST "\r\n")        \
    CASE(connect, 501, "CONNECT a.example:443 HTTP/1.1\r\n" HOST "\r\n")       \
    CASE(version_12, 505, "GET / HTTP/1.2\r\n" HOST "\r\n")                    \
    CASE(version_20, 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")                  \
    CASE(version_09, 505, "GET / HTTP/0.9\r\n\r\n")                            \
    CASE(version_19, 505, "GET / HTTP/1.9\r\n" HOST "\r\n")                    \
    CASE(version_short, 400, "GET / HTTP/1\r\n" HOST "\r\n")                   \
    CASE(version_long, 400, "GET / HTTP/1.10\r\n" HOST "\r\n")                 \
    CASE(version_zero, 400, "GET / HTTP/01.1\r\n" HOST "\r\n")                 \
    CASE(version_tail, 400, "GET / HTTP/1.1x\r\n" HOST "\r\n")                 \
    CASE(version_case, 400, "GET / http/1.1\r\n" HOST "\r\n")                  \
    CASE(version_space, 400, "GET / HTTP/ 1.1\r\n" HOST "\r\n")                \
    CASE(version_comma, 400, "GET / HTTP/1,1\r\n" HOST "\r\n")                 \
    CASE(version_plus, 400, "GET / HTTP/+.1\r\n" HOST "\r\n")                  \
    CASE(version_other, 400, "GET / ICEY/1.1\r\n" HOST "\r\n")                 \
    CASE(a_response, 400, "HTTP/1.1 200 OK\r\n" HOST "\r\n")                   \
    /* fields */                                                               \
    CASE(space_colon, 400, GET "A : b\r\n\r\n")                                \
    CASE(tab_colon, 400, GET "A\t: b\r\n\r\n")                                 \
    CASE(space_colon_length, 400, POST "Content-Length : 42\r\n\r\n" EVIL)     \
    CASE(space_colon_coding, 400, POST "Transfer-Encoding : chunked\r\n\r\n"   \
                                       "0\r\n\r\n" EVIL)                       \
    CASE(empty_name, 400, GET ": b\r\n\r\n")                                   \
    CASE(no_colon, 400, GET "A\r\n\r\n")                                       \
    CASE(name_space, 400, GET "A B: c\r\n\r\n")                                \
    CASE(name_paren, 400, GET "A(: b\r\n\r\n")                                 \
    CASE(name_quote, 400, GET "\"A\": b\r\n\r\n")                              \
    CASE(name_high, 400, GET "\xc3\xa9: b\r\n\r\n")                            \
    CASE(name_slash, 400, GET "A/B: c\r\n\r\n")                                \
    CASE(name_brackets, 400, GET "A[0]: b\r\n\r\n")                            \
    CASE(request_as_field, 400, GET EVIL)                                      \
    CASE(no_host, 400, "GET / HTTP/1.1\r\n\r\n")                               \
    CASE(two_hosts, 400, GET "Host: b\r\n\r\n")                                \
    CASE(two_same_hosts, 400, GET HOST "\r\n")                                 \
    CASE(two_hosts_http10, 400, "GET / HTTP/1.0\r\n" HOST HOST "\r\n")         \
    CASE(host_empty, 400, "GET / HTTP/1.1\r\nHost:\r\n\r\n")                   \
    CASE(host_space, 400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n")               \
    CASE(host_list, 400, "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n")                \
    CASE(host_slash, 400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n")               \
    CASE(host_user, 400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n")                \
    CASE(host_question, 400, "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n")            \
    CASE(host_hash, 400, "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n")                \
    CASE(host_quote, 400, "GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n")             \
    CASE(host_high, 400, "GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n")           \
    CASE(host_bad_port, 400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n")            \
    CASE(host_big_port, 400, "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n")        \
    CASE(host_two_ports, 400, "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n")         \
    CASE(host_port_alone, 400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n")          \
    CASE(host_v6_open, 400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n")            \
    CASE(host_v6_tail, 400, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n")          \
    CASE(host_v6_zone, 400, "GET / HTTP/1.1\r\nHost: [::1%25lo]\r\n\r\n")      \
    CASE(host_v6_empty, 400, "GET / HTTP/1.1\r\nHost: []\r\n\r\n")             \
    CASE(expect_other, 417, POST "Expect: tea\r\nContent-Length: 2\r\n\r\nhi") \
    CASE(expect_two, 417, POST "Expect: 100-continue\r\nExpect: tea\r\n\r\n")  \
    CASE(expect_two_other, 417, POST "Expect: tea\r\n"                         \
                                     "Expect: 100-continue\r\n\r\n")           \
    CASE(head_one_over, 431, GET "A: " X4096("xxx") X256("xxxxxxxxxxxxxxx")    \
            X16("xxxxxxxxxxxxx") "xxxxxxxxx\r\n\r\n")                          \
    CASE(head_over_limit, 431, GET "A: " X4096("xxxx") "\r\n\r\n")             \
    CASE(head_endless, 431, GET X4096("A: b\r\n"))                             \
    CASE(line_endless, 431, X4096("GET /") "x")                                \
    CASE(fields_too_many, 431, GET X256("A:\r\n") "\r\n")                      \
    /* Content-Length */                                                       \
    CASE(length_twice, 400, POST "Content-Length: 2\r\nContent-Length: 2\r\n"  \
                                 "\r\nhi")                                     \
    CASE(length_differs, 400, POST "Content-Length: 0\r\n"                     \
                                   "Content-Length: 39\r\n\r\n" EVIL)          \
    CASE(length_differs_case, 400, POST "Content-Length: 39\r\n"               \
                                        "content-LENGTH: 0\r\n\r\n" EVIL)      \
    CASE(length_list, 400, POST "Content-Length: 2, 2\r\n\r\nhi")              \
    CASE(length_list_differs, 400, POST "Content-Length: 0,39\r\n\r\n" EVIL)   \
    CASE(length_plus, 400, POST "Content-Length: +39\r\n\r\n" EVIL)            \
    CASE(length_minus, 400, POST "Content-Length: -1\r\n\r\n" EVIL)            \
    CASE(length_minus_0, 400, POST "Content-Length: -0\r\n\r\n" EVIL)          \
    CASE(length_hex, 400, POST "Content-Length: 0x27\r\n\r\n" EVIL)            \
    CASE(length_exponent, 400, POST "Content-Length: 4e1\r\n\r\n" EVIL)        \
    CASE(length_point, 400, POST "Content-Length: 2.0\r\n\r\nhi")              \
    CASE(length_space, 400, POST "Content-Length: 3 9\r\n\r\n" EVIL)           \
    CASE(length_semicolon, 400, POST "Content-Length: 2;\r\n\r\nhi")           \
    CASE(length_letters, 400, POST "Content-Length: 2a\r\n\r\nhi")             \
    CASE(length_quoted, 400, POST "Content-Length: \"2\"\r\n\r\nhi")           \
    CASE(length_underscore, 400, POST "Content-Length: 3_9\r\n\r\n" EVIL)      \
    CASE(length_arabic, 400, POST "Content-Length: \xd9\xa2\r\n\r\nhi")        \
    CASE(length_empty, 400, POST "Content-Length:\r\n\r\n" EVIL)               \
    CASE(length_empty_and_real, 400, POST "Content-Length:\r\n"                \
                                          "Content-Length: 39\r\n\r\n" EVIL)   \
    CASE(length_over_64_bits, 400, POST                                        \
        "Content-Length: 18446744073709551616\r\n\r\n" EVIL)                   \
    CASE(length_over_63_bits, 400, POST                                        \
        "Content-Length: 9223372036854775808\r\n\r\n" EVIL)                    \
    CASE(length_wraps, 400, POST                                               \
        "Content-Length: 18446744073709551655\r\n\r\n" EVIL)                   \
    CASE(length_40_digits, 400, POST                                           \
        "Content-Length: 1111111111222222222233333333334444444444\r\n\r\n")    \
    CASE(length_over_limit, 413, POST "Content-Length: 1048577\r\n\r\n" EVIL)  \
    CASE(length_http10_over, 413,                                              \
        "POST / HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n")              \
    /* Transfer-Encoding */                                                    \
    CASE(both, 400, POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" \
                         "\r\n0\r\n\r\n" EVIL)                                 \
    CASE(both_other_order, 400, POST "Transfer-Encoding: chunked\r\n"          \
                                     "Content-Length: 5\r\n\r\n0\r\n\r\n" EVIL) \
    CASE(both_length_0, 400, POST "Content-Length: 0\r\n"                      \
                                  "Transfer-Encoding: chunked\r\n\r\n"         \
                                  "0\r\n\r\n" EVIL)                            \
    CASE(both_identity, 400, POST "Content-Length: 5\r\n"                      \
                                  "Transfer-Encoding: identity\r\n\r\nhello")  \
    CASE(coding_http10, 400, "POST / HTTP/1.0\r\n" HOST                        \
                             "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"     \
                             EVIL)                                             \
    CASE(coding_twice, 501, POST "Transfer-Encoding: chunked\r\n"              \
                                 "Transfer-Encoding: chunked\r\n\r\n"          \
                                 "0\r\n\r\n" EVIL)                             \
    CASE(coding_then_identity, 501, POST "Transfer-Encoding: chunked\r\n"      \
                                         "Transfer-Encoding: identity\r\n\r\n" \
                                         "0\r\n\r\n" EVIL)                     \
    CASE(coding_after_identity, 501, POST "Transfer-Encoding: identity\r\n"    \
                                          "Transfer-Encoding: chunked\r\n\r\n" \
                                          "0\r\n\r\n" EVIL)                    \
    CASE(coding_list_twice, 501, POST                                          \
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" EVIL)           \
    CASE(coding_gzip, 501, POST "Transfer-Encoding: gzip, chunked\r\n\r\n"     \
                                "0\r\n\r\n" EVIL)                              \
    CASE(coding_not_last, 501, POST "Transfer-Encoding: chunked, gzip\r\n\r\n" \
                                    "0\r\n\r\n" EVIL)                          \
    CASE(coding_identity, 501, POST "Transfer-Encoding: identity\r\n\r\n" EVIL) \
    CASE(coding_prefix, 501, POST "Transfer-Encoding: xchunked\r\n\r\n"        \
                                  "0\r\n\r\n" EVIL)                            \
    CASE(coding_suffix, 501, POST "Transfer-Encoding: chunkedx\r\n\r\n"        \
                                  "0\r\n\r\n" EVIL)                            \
    CASE(coding_parameter, 501, POST "Transfer-Encoding: chunked;q=1\r\n\r\n"  \
                                     "0\r\n\r\n" EVIL)                         \
    CASE(coding_quoted, 501, POST "Transfer-Encoding: \"chunked\"\r\n\r\n"     \
                                  "0\r\n\r\n" EVIL)                            \
    CASE(coding_comma, 501, POST "Transfer-Encoding: ,chunked\r\n\r\n"         \
                                 "0\r\n\r\n" EVIL)                             \
    CASE(coding_comma_after, 501, POST "Transfer-Encoding: chunked,\r\n\r\n"   \
                                       "0\r\n\r\n" EVIL)                       \
    CASE(coding_empty, 501, POST "Transfer-Encoding:\r\n\r\n" EVIL)            \
    CASE(coding_vt, 400, POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n"      \
                              "0\r\n\r\n" EVIL)                                \
    CASE(coding_nul, 400, POST "Transfer-Encoding: chunked\0\r\n\r\n"          \
                               "0\r\n\r\n" EVIL)                               \
    CASE(coding_cr, 400, POST "X: y\rTransfer-Encoding: chunked\r\n\r\n"       \
                              "0\r\n\r\n" EVIL)                                \
    CASE(coding_lf, 400, POST "Content-Length: 5\r\nX: y\n"                    \
                              "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"    \
                              EVIL)                                            \
    /* chunks */                                                               \
    CASE(chunk_no_size, 400, CHUNKED "\r\nhello\r\n0\r\n\r\n" EVIL)            \
    CASE(chunk_no_size_end, 400, CHUNKED "\r\n\r\n" EVIL)                      \
    CASE(chunk_no_size_ext, 400, CHUNKED ";a\r\n\r\n" EVIL)                    \
    CASE(chunk_letter, 400, CHUNKED "g\r\nhello\r\n0\r\n\r\n" EVIL)            \
    CASE(chunk_0x, 400, CHUNKED "0x5\r\nhello\r\n0\r\n\r\n" EVIL)              \
    CASE(chunk_plus, 400, CHUNKED "+5\r\nhello\r\n0\r\n\r\n" EVIL)             \
    CASE(chunk_minus, 400, CHUNKED "-5\r\nhello\r\n0\r\n\r\n" EVIL)            \
    CASE(chunk_minus_0, 400, CHUNKED "-0\r\n\r\n" EVIL)                        \
    CASE(chunk_space_before, 400, CHUNKED " 5\r\nhello\r\n0\r\n\r\n" EVIL)     \
    CASE(chunk_space_after, 400, CHUNKED "5 \r\nhello\r\n0\r\n\r\n" EVIL)      \
    CASE(chunk_tab_after, 400, CHUNKED "5\t\r\nhello\r\n0\r\n\r\n" EVIL)       \
    CASE(chunk_space_extension, 400, CHUNKED "5 ;a\r\nhello\r\n0\r\n\r\n" EVIL) \
    CASE(chunk_point, 400, CHUNKED "5.0\r\nhello\r\n0\r\n\r\n" EVIL)           \
    CASE(chunk_underscore, 400, CHUNKED "0_5\r\nhello\r\n0\r\n\r\n" EVIL)      \
    CASE(chunk_comma, 400, CHUNKED "5,5\r\nhello\r\n0\r\n\r\n" EVIL)           \
    CASE(chunk_nul, 400, CHUNKED "5\0\r\nhello\r\n0\r\n\r\n" EVIL)             \
    CASE(chunk_lf, 400, CHUNKED "5\nhello\r\n0\r\n\r\n" EVIL)                  \
    CASE(chunk_cr, 400, CHUNKED "5\rhello\r\n0\r\n\r\n" EVIL)                  \
    CASE(chunk_cr_cr_lf, 400, CHUNKED "5\r\r\nhello\r\n0\r\n\r\n" EVIL)        \
    CASE(chunk_17_digits, 400, CHUNKED "00000000000000005\r\nhello\r\n"        \
                                       "0\r\n\r\n" EVIL)                       \
    CASE(chunk_wraps, 400, CHUNKED "10000000000000005\r\nhello\r\n"            \
                                   "0\r\n\r\n" EVIL)                           \
    CASE(chunk_huge, 413, CHUNKED "ffffffffffffffff\r\nhello\r\n")             \
    CASE(chunk_over_limit, 413, CHUNKED "100001\r\nhello\r\n")                 \
    CASE(chunks_over_limit, 413, CHUNKED "5\r\nhello\r\nfffff\r\n" EVIL)       \
    CASE(chunk_long, 400, CHUNKED "4\r\nhello\r\n0\r\n\r\n" EVIL)              \
    CASE(chunk_short, 400, CHUNKED "6\r\nhello\r\n0\r\n\r\n" EVIL)             \
    CASE(chunk_no_end, 400, CHUNKED "5\r\nhello0\r\n\r\n" EVIL)                \
    CASE(chunk_lf_end, 400, CHUNKED "5\r\nhello\n0\r\n\r\n" EVIL)              \
    CASE(chunk_cr_end, 400, CHUNKED "5\r\nhello\r0\r\n\r\n" EVIL)              \
    CASE(chunk_other_end, 400, CHUNKED "5\r\nhello!\n0\r\n\r\n" EVIL)          \
    CASE(chunk_two_ends, 400, CHUNKED "5\r\nhello\r\n\r\n0\r\n\r\n" EVIL)      \
    CASE(extension_lf, 400, CHUNKED "5;a\nbcdef\r\nhello\r\n0\r\n\r\n" EVIL)   \
    CASE(extension_lf_2, 400, CHUNKED "0;\n\r\n\r\n" EVIL)                     \
    CASE(extension_cr, 400, CHUNKED "5;a\rb\r\nhello\r\n0\r\n\r\n" EVIL)       \
    CASE(extension_nul, 400, CHUNKED "5;\0\r\nhello\r\n0\r\n\r\n" EVIL)        \
    CASE(extension_escape, 400, CHUNKED "5;\x1b\r\nhello\r\n0\r\n\r\n" EVIL)   \
    CASE(extension_quoted_lf, 400, CHUNKED "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"  \
                                   EVIL)                                       \
    CASE(extension_endless, 431, CHUNKED "5;" X4096("abcd") "\r\nhello\r\n")   \
    CASE(extensions_endless, 431, CHUNKED                                      \
        X256("1;" X16("abcdefgh") "\r\nx\r\n") "0\r\n\r\n")                    \
    CASE(last_lf, 400, CHUNKED "0\n\n" EVIL)                                   \
    CASE(last_lf_end, 400, CHUNKED "0\r\n\n" EVIL)                             \
    CASE(last_cr_end, 400, CHUNKED "0\r\n\r" EVIL)                             \
    CASE(last_no_end, 400, CHUNKED "0\r\n" EVIL)                               \
    CASE(trailer_fold, 400, CHUNKED "0\r\nA: b\r\n c\r\n\r\n" EVIL)            \
    CASE(trailer_space_colon, 400, CHUNKED "0\r\nA : b\r\n\r\n" EVIL)          \
    CASE(trailer_no_colon, 400, CHUNKED "0\r\nA\r\n\r\n" EVIL)                 \
    CASE(trailer_no_name, 400, CHUNKED "0\r\n: b\r\n\r\n" EVIL)                \
    CASE(trailer_lf, 400, CHUNKED "0\r\nA: b\n\r\n" EVIL)                      \
    CASE(trailer_cr, 400, CHUNKED "0\r\nA: b\rc\r\n\r\n" EVIL)                 \
    CASE(trailer_cr_end, 400, CHUNKED "0\r\nA: b\rc\r\n" EVIL)                 \
    CASE(trailer_nul, 400, CHUNKED "0\r\nA: \0\r\n\r\n" EVIL)                  \
    CASE(trailer_endless, 431, CHUNKED "0\r\n" X4096("A: b\r\n") "\r\n")       \
    CASE(after_last, 400, CHUNKED "0\r\n\r\nhello\r\n" EVIL)                   \
    CASE(after_body, 400, POST "Content-Length: 2\r\n\r\nhi(" EVIL)

#define OK      "HTTP/1.1 200 OK\r\n"
#define LENGTH2 "Content-Length: 2\r\n"

/* Likewise, of responses: what a gateway may take for a whole response. `evil`
 * stands where a second response would hide. */
#define HTTP_RESPONSE_CASES(CASE)                                              \
    CASE(length, 1, OK LENGTH2 "\r\nhi")                                       \
    CASE(length_0, 1, OK "Content-Length: 0\r\n\r\n")                          \
    CASE(chunked, 1, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"        \
                        "0\r\nA: b\r\n\r\n")                                   \
    CASE(no_reason, 1, "HTTP/1.1 200 \r\n" LENGTH2 "\r\nhi")                   \
    CASE(no_reason_no_space, 1, "HTTP/1.1 200\r\n" LENGTH2 "\r\nhi")           \
    CASE(high_reason, 1, "HTTP/1.1 200 tr\xe8s bien\r\n" LENGTH2 "\r\nhi")     \
    CASE(interim, 2, "HTTP/1.1 100 Continue\r\n\r\n" OK LENGTH2 "\r\nhi")      \
    CASE(early_hints, 2, "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" OK LENGTH2    \
                         "\r\nhi")                                             \
    CASE(upgrade, 1, "HTTP/1.1 101 Switching\r\n\r\n")                         \
    CASE(no_content, 2, "HTTP/1.1 204 No Content\r\n\r\n" OK LENGTH2           \
                        "\r\nhi")                                              \
    CASE(not_modified, 2, "HTTP/1.1 304 Not\r\nContent-Length: 99\r\n\r\n"     \
                          OK LENGTH2 "\r\nhi")                                 \
    CASE(two, 2, OK LENGTH2 "\r\nhi" OK LENGTH2 "\r\nhi")                      \
    CASE(endless, 0, OK "\r\nhello")                                           \
    CASE(endless_http10, 0, "HTTP/1.0 200 OK\r\n\r\nhello")                    \
    CASE(host_field, 1, OK "Host: a\r\nHost: b\r\n" LENGTH2 "\r\nhi")          \
    CASE(part, 0, OK "Content-Length: 3\r\n\r\nhi")                            \
    CASE(both, 400, OK LENGTH2 "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")  \
    CASE(length_twice, 400, OK LENGTH2 LENGTH2 "\r\nhi")                       \
    CASE(length_differs, 400, OK LENGTH2 "Content-Length: 3\r\n\r\nhi!")       \
    CASE(length_list, 400, OK "Content-Length: 2, 2\r\n\r\nhi")                \
    CASE(length_plus, 400, OK "Content-Length: +2\r\n\r\nhi")                  \
    CASE(length_minus, 400, OK "Content-Length: -1\r\n\r\nhi")                 \
    CASE(length_huge, 400, OK "Content-Length: 99999999999999999999\r\n\r\n")  \
    CASE(length_over, 413, OK "Content-Length: 1048577\r\n\r\n")               \
    CASE(coding_http10, 400, "HTTP/1.0 200 OK\r\n"                             \
                             "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")    \
    CASE(coding_gzip, 501, OK "Transfer-Encoding: gzip, chunked\r\n\r\n")      \
    CASE(coding_identity, 501, OK "Transfer-Encoding: identity\r\n\r\nhi")     \
    CASE(coding_twice, 501, OK "Transfer-Encoding: chunked\r\n"                \
                               "Transfer-Encoding: chunked\r\n\r\n")           \
    CASE(chunk_bad, 400, OK "Transfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n")  \
    CASE(chunk_long, 400, OK "Transfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n")  \
    CASE(chunk_over, 413, OK "Transfer-Encoding: chunked\r\n\r\n100001\r\n")   \
    CASE(version_2, 505, "HTTP/2.0 200 OK\r\n\r\n")                            \
    CASE(version_case, 400, "http/1.1 200 OK\r\n\r\n")                         \
    CASE(version_other, 400, "ICY 200 OK\r\n\r\n")                             \
    CASE(status_2_digits, 400, "HTTP/1.1 20 OK\r\n\r\n")                       \
    CASE(status_4_digits, 400, "HTTP/1.1 2000 OK\r\n\r\n")                     \
    CASE(status_99, 400, "HTTP/1.1 099 OK\r\n\r\n")                            \
    CASE(status_600, 400, "HTTP/1.1 600 OK\r\n\r\n")                           \
    CASE(status_letter, 400, "HTTP/1.1 2x0 OK\r\n\r\n")                        \
    CASE(status_plus, 400, "HTTP/1.1 +20 OK\r\n\r\n")                          \
    CASE(status_none, 400, "HTTP/1.1 \r\n\r\n")                                \
    CASE(status_nothing, 400, "HTTP/1.1\r\n\r\n")                              \
    CASE(two_spaces, 400, "HTTP/1.1  200 OK\r\n\r\n")                          \
    CASE(tab, 400, "HTTP/1.1\t200 OK\r\n\r\n")                                 \
    CASE(reason_cr, 400, "HTTP/1.1 200 O\rK\r\n\r\n")                          \
    CASE(reason_nul, 400, "HTTP/1.1 200 O\0K\r\n\r\n")                         \
    CASE(lf_status_line, 400, "HTTP/1.1 200 OK\n" LENGTH2 "\r\nhi")            \
    CASE(lf_field, 400, OK "A: b\n" LENGTH2 "\r\nhi")                          \
    CASE(lf_end, 400, OK LENGTH2 "\nhi")                                       \
    CASE(cr_in_value, 400, OK "A: b\rC: d\r\n" LENGTH2 "\r\nhi")               \
    CASE(fold, 400, OK "A: b\r\n c\r\n" LENGTH2 "\r\nhi")                      \
    CASE(space_colon, 400, OK "Content-Length : 2\r\n\r\nhi")                  \
    CASE(empty_name, 400, OK ": b\r\n" LENGTH2 "\r\nhi")                       \
    CASE(no_colon, 400, OK "A\r\n" LENGTH2 "\r\nhi")                           \
    CASE(nul_value, 400, OK "A: \0\r\n" LENGTH2 "\r\nhi")                      \
    CASE(line_before, 400, "\r\n" OK LENGTH2 "\r\nhi")                         \
    CASE(a_request, 400, GET "\r\n")                                           \
    CASE(head_endless, 431, OK X4096("A: b\r\n"))                              \
    CASE(trailer_bad, 400, OK "Transfer-Encoding: chunked\r\n\r\n"             \
                              "0\r\nA : b\r\n\r\n")
