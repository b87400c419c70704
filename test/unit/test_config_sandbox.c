/* test_config_sandbox.c - a script cannot leave its sandbox nor its limits
 * (L-2). */
#include "test_config.h"

#include <time.h>

/* Each is nil or an error. */
static const char *const absent[] = {"os", "io", "debug", "require", "load",
    "loadstring", "loadfile", "dofile", "collectgarbage", "package", "_G",
    "coroutine", "print", "warn", "rawset", "xpcall", "getfenv", "module",
    "string.dump", "string.pack", "math.random", "math.randomseed",
    "table.move", "_VERSION", "_ENV.os"};

TEST(test_config_sandbox__what_reaches_out__is_absent)
{
    char text[256];

    for (size_t i = 0; i < WB_COUNT(absent); i++) {
        (void)snprintf(text, sizeof(text),
            "local ok, x = pcall(function() return %s end)\n"
            "if ok and x ~= nil then error(\"is there\") end",
            absent[i]);
        if (read_text(text) == WB_OK)
            close_config();
        if (strstr(err.msg, "is there") != NULL)
            fail_msg("%s is there", absent[i]);
    }
}

/* Escapes known from other sandboxes; each must fail as it says. */
static const struct {
    const char *text, *says;
} escapes[] = {
    {"getmetatable(\"\").__index = 1", "attempt to index a string value"},
    {"getmetatable(\"\").x = 1", "attempt to index a string value"},
    {"setmetatable(\"\", {})", "table expected"},
    {"setmetatable(_ENV, {})", "cannot change a protected metatable"},
    {"setmetatable({}, { __gc = function() end })", "__gc is not for scripts"},
    {"setmetatable(array {}, {})", "cannot change a protected metatable"},
    {"local f = (\"\").dump f(error)", "attempt to call a nil value"},
    {"(\"\").rep.x = 1", "attempt to index a function value"},
    {"local _ENV = nil; x = 1", "attempt to index a nil value"},
    {"string.format(\"%d\", \"x\")", "number expected, got string"},
    {"string.rep(\"x\", 1 << 28)", "ran out of its 64 MiB of memory"},
    {"string.rep(\"x\", -1 >> 1)", "resulting string too large"},
    {"error(string.rep(\"\", 1 << 60, \"\") .. \"at once\")", "at once"},
    {"table.unpack({}, 1, 1e8)", "too many results to unpack"},
    {"table.concat(setmetatable({}, { __len = function() return 1e9 end }))",
        "a plain table is needed, without __len"},
    {"table.insert(setmetatable({}, { __len = function() return 1 << 60 end "
     "}), 1, 1)",
        "a plain table is needed, without __len"},
    {"table.sort(setmetatable({}, { __len = function() return 1 << 30 end "
     "}), rawequal)",
        "a plain table is needed, without __len"},
    {"for i = 1, 30 do local t = setmetatable({}, {}) "
     "getmetatable(t).__gc = 1 end while true do end",
        "ran out of steps"},
    {"pairs({ [{}] = 1 })", "a table with a table as key has no order"},
    {"select(-1)", "index out of range"},
    {"utf8.char(-1)", "value out of range"},
};

TEST(test_config_sandbox__known_escapes__fail)
{
    for (size_t i = 0; i < WB_COUNT(escapes); i++) {
        if (read_text(escapes[i].text) != WB_INVALID ||
            strstr(err.msg, escapes[i].says) == NULL)
            fail_msg("%s: %s", escapes[i].text, err.msg);
    }
}

/* Each would run for ever, or use all memory. */
static const struct {
    const char *text, *says;
} bombs[] = {
    {"while true do end", "c.lua:1: ran out of steps; is there an endless"},
    {"\nrepeat until false", "c.lua:2: ran out of steps"},
    {"::a:: goto a", "ran out of steps"},
    {"for i = 1, math.huge do end", "ran out of steps"},
    {"local function f() return f() end f()", "ran out of steps"},
    {"local function f() f() end f()", "ran out of its 64 MiB of memory"},
    {"local function f() return (pcall(f)) end f()  while true do end",
        "ran out of steps"},
    {"while true do pcall(function() while true do end end) end",
        "ran out of steps"},
    {"local function f() pcall(f) return f() end f()", "ran out of steps"},
    {"local t = setmetatable({}, { __index = function(t, k) return t[k + 1] "
     "end }) local x = t[1]",
        "stack overflow"},
    {"local t = {} t.x = t setmetatable(t, { __index = t }) local x = t.y",
        "'__index' chain too long; possible loop"},
    {"local t = {} while true do t[#t + 1] = {} end",
        "ran out of its 64 MiB of memory"},
    {"local s = \"x\" while true do s = s .. s end",
        "ran out of its 64 MiB of memory"},
    {"local t = {} for i = 1, 1e9 do t[i] = (\"x\"):rep(1000) .. i end",
        "ran out of its 64 MiB of memory"},
    {"(\"a\"):rep(40):find((\"a-\"):rep(30) .. \"b\")", "ran out of steps"},
    {"(\"a\"):rep(40):match((\"a*\"):rep(30) .. \"b\")", "ran out of steps"},
    {"(\"a\"):rep(40):gsub((\"a?\"):rep(40) .. (\"a\"):rep(41), \"\")",
        "ran out of steps"},
    {"for _ in (\"a\"):rep(40):gmatch((\"a*\"):rep(30) .. \"b\") do end",
        "ran out of steps"},
    {"for _ in (\"^\"):rep(6000):gmatch(\"^.-.-x\") do end",
        "ran out of steps"}, /* ^ is no anchor there */
    {"(\"(\"):rep(1 << 20):find(\"%b()\")", "ran out of steps"},
    {"local t = {} for i = 1, 1e5 do t[i] = i end "
     "while true do table.insert(t, 1, 1) end",
        "ran out of steps"},
    {"local t = {} for i = 1, 1e5 do t[i] = i end "
     "while true do table.sort(t) end",
        "ran out of steps"},
    {"local t = {} for i = 1, 1e5 do t[i] = i end "
     "while true do next(t) end",
        "ran out of steps"},
    {"local t = {} for i = 1, 1e5 do t[i] = i end "
     "while true do pairs(t) end",
        "ran out of steps"},
    {"local x <close> = setmetatable({}, { __close = function() while true do "
     "end end }) while true do end",
        "ran out of steps"},
    {"local s = (\"(\"):rep(1000) .. \"x\" return s:match(s)",
        "too many captures"},
};

TEST(test_config_sandbox__bombs__end_in_time)
{
    clock_t begin = clock();

    for (size_t i = 0; i < WB_COUNT(bombs); i++) {
        if (read_text(bombs[i].text) != WB_INVALID ||
            strstr(err.msg, bombs[i].says) == NULL)
            fail_msg("%s: %s", bombs[i].text, err.msg);
        CHECK(fake_env.live == 0);
    }
    CHECK(clock() - begin < 60 * CLOCKS_PER_SEC);
}

/* Work that counts no steps is limited by CPU time. */
TEST(test_config_sandbox__slow_in_few_steps__cpu_time_ends_it)
{
    READ("local a = (\"x\"):rep(4 << 20) .. \"a\"\n"
         "local b = (\"x\"):rep(4 << 20) .. \"b\"\n"
         "ready = function() while true do local c = a < b end end");
    script()->limits.cpu_ms = 200;
    CHECK(!wb_config_ready(config, &err));
    CHECK_TEXT("c.lua:3: ran out of steps; is there an endless loop?", err.msg);
    CHECK(script()->steps == -1);
    close_config();
}

TEST(test_config_sandbox__after_a_bomb__next_call_has_its_own_budget)
{
    READ("local n = 0\nready = function() n = n + 1\n"
         "if n == 1 then while true do end end\n"
         "if n == 2 then return (\"x\"):rep(1 << 30) end\n"
         "if n == 3 then local t = setmetatable({}, { __index = "
         "function(t, k) return t[k + 1] end }) return t[1] end\n"
         "return true end");
    CHECK(!wb_config_ready(config, &err));
    CHECK_HAS("ran out of steps", err.msg);
    CHECK(!wb_config_ready(config, &err));
    CHECK_HAS("ran out of its 64 MiB of memory", err.msg);
    CHECK(!wb_config_ready(config, &err));
    CHECK_HAS("C stack overflow", err.msg);
    CHECK(wb_config_ready(config, &err));
    close_config();
}

/* ---- what works, works the same everywhere ----------------------------- */

static const char *const works[] = {
    "local s = \"\" for k, v in pairs { b = 2, a = 1, [10] = \"x\", [2] = "
    "\"y\", [1.5] = \"z\", [true] = 3, B = 0 } do s = s .. tostring(k) .. "
    "tostring(v) .. \" \" end "
    "assert(s == \"1.5z 2y 10x B0 a1 b2 true3 \", s)",
    "local t = {} for i = 1, 500 do t[\"k\" .. i] = i end local last = \"\" "
    "local n = 0 for k in pairs(t) do assert(last < k) last = k n = n + 1 end "
    "assert(n == 500)",
    "local t = { a = 1, b = 2, c = 3 } local k, v = next(t) "
    "assert(k == \"a\" and v == 1) k = next(t, k) assert(k == \"b\") "
    "assert(next(t, \"c\") == nil and next({}) == nil)",
    "assert(next({ 10, 20 }, 1) == 2)",
    "local t = { a = 1, b = 2, c = 3 } local s = \"\" for k in pairs(t) do "
    "s = s .. k t[k] = nil t.b = nil end assert(s == \"ac\")",
    "local s = 0 for i, v in ipairs { 1, 2, nil, 4 } do s = s + v end "
    "assert(s == 3)",
    "assert((\"a,b\"):find(\",\", 1, true) == 2)",
    "assert((\"  x \"):match(\"^%s*(.-)%s*$\") == \"x\")",
    "assert((\"k=v\"):gsub(\"(%w)=(%w)\", \"%2=%1\") == \"v=k\")",
    "local n = 0 for w in (\"a b c\"):gmatch(\"%a\") do n = n + 1 end "
    "assert(n == 3)",
    "local t = { 3, 1, 2 } table.sort(t, function(a, b) return a > b end) "
    "assert(table.concat(t, \",\") == \"3,2,1\")",
    "local t = {} table.insert(t, \"b\") table.insert(t, 1, \"a\") "
    "assert(table.remove(t) == \"b\" and table.remove(t, 1) == \"a\")",
    "assert(select(\"#\", table.unpack { 1, 2, 3 }) == 3)",
    "assert(math.floor(2.5) == 2 and math.max(1, 2) == 2)",
    "assert(utf8.len(\"über\") == 4)",
    "assert(tostring(1.5) == \"1.5\" and tonumber(\"1.5\") == 1.5)",
    "assert(string.format(\"%5.2f|%s\", 1, {}):sub(1, 6) == \" 1.00|\")",
    "local ok, e = pcall(error, { code = 1 }) assert(not ok and e.code == 1)",
    "local t = setmetatable({}, { __index = function(_, k) return k end }) "
    "assert(t.x == \"x\")",
    "local t = array { 1 } assert(#t == 1) t[2] = 2 assert(table.concat(t) == "
    "\"12\")",
    "assert(null ~= nil and null == null)",
    "local t = {} for i = 1, 1e5 do t[#t + 1] = i end",
    "local s = (\"a\"):rep(500) assert(s:match(\"^%s*(.-)%s*$\") == s)",
};

TEST(test_config_sandbox__ordinary_lua__works)
{
    for (size_t i = 0; i < WB_COUNT(works); i++) {
        if (read_text(works[i]) != WB_OK)
            fail_msg("%s: %s", works[i], err.msg);
        close_config();
    }
}

TEST(test_config_sandbox__locale_of_the_program__does_not_matter)
{
    if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL)
        (void)setlocale(LC_ALL, "");
    READ("assert(tostring(1.5) == \"1.5\" and \"B\" < \"a\")");
    close_config();
    (void)setlocale(LC_ALL, "C");
}

TEST(test_config_sandbox__bytes__counted_to_the_last)
{
    READ("local t = {} for i = 1, 1000 do t[i] = { i } end "
         "ready = function() return #t == 1000 end");
    CHECK(script()->bytes > 50000);
    lua_close(script()->lua);
    script()->lua = NULL;
    CHECK_INT(0, script()->bytes);
    close_config();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_sandbox__what_reaches_out__is_absent),
        RUN(test_config_sandbox__known_escapes__fail),
        RUN(test_config_sandbox__bombs__end_in_time),
        RUN(test_config_sandbox__slow_in_few_steps__cpu_time_ends_it),
        RUN(test_config_sandbox__after_a_bomb__next_call_has_its_own_budget),
        RUN(test_config_sandbox__ordinary_lua__works),
        RUN(test_config_sandbox__locale_of_the_program__does_not_matter),
        RUN(test_config_sandbox__bytes__counted_to_the_last),
    };
    return RUN_ALL(tests);
}
