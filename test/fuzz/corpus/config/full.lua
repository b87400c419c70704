local s = env "CANARY"
route "x" {
  transport = "http", url = "http://h/{id}?a={a.b}", method = "PUT",
  headers = { ["X-Team"] = "red", Authorization = "Bearer " .. s },
  timeout = "45s", concurrency = 3, rate = 7, body = "a.b",
  retry = { base = "1s", cap = "1m", factor = 2, attempts = 5, retry_after = "1h", rejected = true },
  breaker = { failures = 9, open = "2m", scope = "h" },
  public_only = true, follow = true, http1 = true, disable_on_410 = true,
  ca_file = "/etc/ca.pem", max_reply = "1k",
  response = function(r, m) tally("a", 2) return "retry", r.json.error, 2 end,
}
route "y*" { transport = "exec", argv = { "a", "b" }, body = function(m) return { m.payload, array {}, null } end }
route "z" { transport = "file", path = "p" }
route "b" { url = function(m) return "http://h/" .. s end, batch = { max = 1, format = "ndjson" } }
relay { lease = "90s" }
outbox { max_payload = "64k", max_rows = 1000, max_file = 1048576, keep_delivered = "8d", keep_abandoned = "90d", busy = "1s" }
ready = function() return true, "x" end
