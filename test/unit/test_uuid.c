/* test_uuid.c - UUIDv7 and the canonical text. */
#include "base/base.h"

#include <stdio.h>

#include "support.h"

TEST(test_uuid__v7_of_rfc9562__its_own_example)
{
    static const uint8_t random[10] = {
        0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};

    CHECK_TEXT("017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        wb__uuid7(INT64_C(1645557742000), random).text);
}

TEST(test_uuid__v7__version_variant_and_order_of_time)
{
    struct wb_id last = {""};

    for (int i = 0; i < 5000; i++) {
        uint8_t random[10];
        struct wb_id id, back;

        ENV->random(ENV->ctx, random, sizeof(random));
        id = wb__uuid7(FAKE_START_MS + i, random);
        CHECK_INT('7', id.text[14]);
        CHECK(strchr("89ab", id.text[19]) != NULL);
        CHECK(strcmp(last.text, id.text) < 0);
        CHECK(wb__uuid_parse(wb_slice(id.text), &back));
        CHECK_TEXT(id.text, back.text);
        last = id;
    }
    (void)wb__uuid7(INT64_MIN, (const uint8_t[10]){0});
    (void)wb__uuid7(INT64_MAX, (const uint8_t[10]){0});
}

/* One byte of a good one changed: good exactly if it is still a UUID. */
TEST(test_uuid__parse__every_byte_at_every_position)
{
    char text[] = "0190a000-0000-7000-8000-00000000000a";

    for (int at = 0; at < 36; at++) {
        bool dash = at == 8 || at == 13 || at == 18 || at == 23;

        for (int c = 0; c < 256; c++) {
            char kept = text[at];
            struct wb_id id = {"untouched"};
            bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
                       (c >= 'A' && c <= 'F');
            bool ok;

            text[at] = (char)c;
            ok = wb__uuid_parse((struct wb_slice){text, 36}, &id);
            CHECK(ok == (dash ? c == '-' : hex));
            if (!ok)
                CHECK_TEXT("untouched", id.text);
            text[at] = kept;
        }
    }
    CHECK(!wb__uuid_parse((struct wb_slice){text, 35}, &(struct wb_id){""}));
    CHECK(!wb__uuid_parse((struct wb_slice){text, 37}, &(struct wb_id){""}));
    CHECK(!wb__uuid_parse((struct wb_slice){0}, &(struct wb_id){""}));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_uuid__v7_of_rfc9562__its_own_example),
        RUN(test_uuid__v7__version_variant_and_order_of_time),
        RUN(test_uuid__parse__every_byte_at_every_position),
    };
    return RUN_ALL(tests);
}
