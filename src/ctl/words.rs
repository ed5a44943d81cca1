//! The words of a template: functions and filters, what they do, and an example of each.
//!
//! Why a table: `docs/reference/template-functions.md` is written from it, an unknown filter is
//! answered with the nearest name in it, and `tests/reference.rs` renders every example and
//! compares. A word the engine has and this table does not is found by the test below.
//!
//! Invariant: one row a registered function or filter; examples are true of `EXAMPLE_KEYS`.
//!
//! Deliberately not here: what Tera brings itself, but for the names (`TERA_FILTERS`).
//!
//! Sources: `render::engine::functions` and `render::engine::filters`; Tera 2's own list.

/// One function or filter.
#[derive(Debug)]
pub struct Word {
    /// What a template calls it.
    pub name: &'static str,
    /// How it is written, with its arguments.
    pub form: &'static str,
    /// What it returns, in one line.
    pub doc: &'static str,
    /// An expression between `{{` and `}}`.
    pub example: &'static str,
    /// What that prints; empty = what it prints depends on the host.
    pub prints: &'static str,
}

const fn word(
    name: &'static str,
    form: &'static str,
    doc: &'static str,
    example: &'static str,
    prints: &'static str,
) -> Word {
    Word { name, form, doc, example, prints }
}

/// The keys that the examples read, as a file for `--data`.
pub const EXAMPLE_KEYS: &str = r#"{
  "/message": "Hello",
  "/services/web/a": "{\"addr\": \"192.0.2.1\", \"port\": 8001}",
  "/services/web/b": "{\"addr\": \"192.0.2.2\", \"port\": 8002}"
}
"#;

/// What reads keys and the host.
pub const FUNCTIONS: &[Word] = &[
    word("exists", "exists(key=)", "whether the key has a value", "exists(key='/message')", "true"),
    word(
        "get",
        "get(key=)",
        "`{key, name, value, json, mod_revision, ttl}`; `json` is the value decoded, if it is JSON",
        "get(key='/services/web/a') | get(key='name')",
        "a",
    ),
    word(
        "getenv",
        "getenv(name=, default=)",
        "an environment variable of the daemon; one that is unset or empty takes the default",
        "getenv(name='ALTHING_NO_SUCH', default='none')",
        "none",
    ),
    word(
        "gets",
        "gets(pattern=)",
        "a list of what `get` returns, one a matching key, in key order; `*`, `?` and `[..]` as \
         in a shell",
        "gets(pattern='/services/web/*') | length",
        "2",
    ),
    word(
        "getv",
        "getv(key=, default=)",
        "the value; without a default, a missing key fails the render",
        "getv(key='/none', default='nothing')",
        "nothing",
    ),
    word(
        "getvs",
        "getvs(pattern=)",
        "the values of matching keys, in key order",
        "getvs(pattern='/mess*') | join(sep=',')",
        "Hello",
    ),
    word(
        "lookup_ip",
        "lookup_ip(name=)",
        "the addresses of a host, sorted; an empty list if there are none or nobody answers; a \
         change of an address is seen at the next render and starts none",
        "lookup_ip(name='192.0.2.1') | join(sep=' ')",
        "192.0.2.1",
    ),
    word(
        "ls",
        "ls(path=)",
        "the names of a directory's children",
        "ls(path='/services/web') | join(sep=' ')",
        "a b",
    ),
    word(
        "lsdir",
        "lsdir(path=)",
        "the names of those children that have children",
        "lsdir(path='/') | join(sep=' ')",
        "services",
    ),
    word(
        "node",
        "node()",
        "this host: `name`, as the setting `name` says",
        "node() | get(key='name')",
        "",
    ),
    word("revision", "revision()", "the store's revision that is rendered", "revision()", "1"),
];

/// What changes or tests a value.
pub const FILTERS: &[Word] = &[
    word("b64decode", "b64decode", "text from base64", "'SGk=' | b64decode", "Hi"),
    word("b64encode", "b64encode", "base64 of a text", "'Hi' | b64encode", "SGk="),
    word("base", "base", "the last part of a path", "'/a/b' | base", "b"),
    word("dir", "dir", "the path without its last part", "'/a/b' | dir", "/a"),
    word(
        "env_quote",
        "env_quote",
        "quoted for systemd's `EnvironmentFile` and a POSIX shell",
        "'5 $' | env_quote",
        "\"5 \\$\"",
    ),
    word(
        "from_json",
        "from_json",
        "the value a JSON text stands for",
        "getv(key='/services/web/a') | from_json | get(key='addr')",
        "192.0.2.1",
    ),
    word(
        "from_yaml",
        "from_yaml",
        "the value a YAML text stands for",
        "'{a: [1, 2]}' | from_yaml | get(key='a') | join(sep='+')",
        "1+2",
    ),
    word(
        "host",
        "host",
        "passes a host name or IP address on, fails on anything else",
        "'web1.example' | host",
        "web1.example",
    ),
    word(
        "ident",
        "ident",
        "passes a name of letters, digits, `_`, `-` and `.` on that begins with neither `-` nor \
         `.`, fails on anything else",
        "'web-1' | ident",
        "web-1",
    ),
    word(
        "ip",
        "ip",
        "passes an IP address on, fails on anything else",
        "'192.0.2.1' | ip",
        "192.0.2.1",
    ),
    word(
        "multiline",
        "multiline",
        "lets the line breaks and tabs of a stored value through the line guard",
        "getv(key='/message') | multiline",
        "Hello",
    ),
    word(
        "natsort",
        "natsort",
        "a list sorted so that numbers inside texts count as numbers",
        "['w10', 'w2'] | natsort | join(sep=' ')",
        "w2 w10",
    ),
    word(
        "port",
        "port",
        "passes a port from 1 to 65535 on, fails on anything else",
        "8080 | port",
        "8080",
    ),
    word(
        "quote_haproxy",
        "quote_haproxy",
        "one word of an HAProxy configuration",
        "\"it's 5 $\" | quote_haproxy",
        "'it'\\''s 5 $'",
    ),
    word(
        "quote_nginx",
        "quote_nginx",
        "one word of an nginx configuration; fails on `$`, for which nginx has no escape",
        "'a \"b\";' | quote_nginx",
        "\"a \\\"b\\\";\"",
    ),
    word("quote_sh", "quote_sh", "the same as `shell_quote`", "'a b' | quote_sh", "'a b'"),
    word(
        "regex_replace",
        "regex_replace(pattern=, rep=)",
        "the text with each match of a regular expression replaced; `$1` and `$name` are what it \
         captured",
        "'web-7' | regex_replace(pattern='([a-z]+)-([0-9]+)', rep='$2.$1')",
        "7.web",
    ),
    word(
        "sha256",
        "sha256",
        "the SHA-256 of a text in hexadecimal digits",
        "'' | sha256 | truncate(length=8, end='')",
        "e3b0c442",
    ),
    word("shell_quote", "shell_quote", "one word of a POSIX shell", "'a b' | shell_quote", "'a b'"),
    word(
        "to_json",
        "to_json(pretty=)",
        "JSON with sorted keys; with `pretty=true` on several lines",
        "['a', 1] | to_json",
        "[\"a\",1]",
    ),
    word(
        "to_toml",
        "to_toml",
        "a map as a TOML document with sorted keys",
        "{'port': 80} | to_toml",
        "port = 80",
    ),
    word(
        "to_yaml",
        "to_yaml",
        "YAML in block style with sorted keys, without the last line break",
        "{'port': 80} | to_yaml",
        "port: 80",
    ),
];

/// Filters that come with Tera 2. `safe` is not among them: it would switch the line guard off.
pub const TERA_FILTERS: &[&str] = &[
    "abs",
    "capitalize",
    "default",
    "escape",
    "escape_html",
    "escape_xml",
    "first",
    "float",
    "get",
    "group_by",
    "indent",
    "int",
    "join",
    "keys",
    "last",
    "length",
    "lower",
    "newlines_to_br",
    "nth",
    "pairs",
    "pluralize",
    "replace",
    "reverse",
    "round",
    "sort",
    "split",
    "str",
    "title",
    "trim",
    "trim_end",
    "trim_start",
    "truncate",
    "unique",
    "upper",
    "values",
    "wordcount",
];

/// Functions that come with Tera 2.
pub const TERA_FUNCTIONS: &[&str] = &["range", "throw"];

/// Every name a template may call as `kind` ("filter" or "function").
#[must_use]
pub fn names(kind: &str) -> Vec<&'static str> {
    let (ours, theirs) = match kind {
        "filter" => (FILTERS, TERA_FILTERS),
        _ => (FUNCTIONS, TERA_FUNCTIONS),
    };
    ours.iter().map(|word| word.name).chain(theirs.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The names behind `call("` in a source of the engine.
    fn named(file: &str, calls: &[&str]) -> Vec<String> {
        let text = fs::read_to_string(format!("src/render/engine/{file}")).unwrap();
        let rest = |call: &&str| {
            let rest = text.split(*call).skip(1);
            rest.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut names: Vec<String> = calls.iter().flat_map(rest).collect();
        names.sort();
        names
    }

    #[test]
    fn every_word_of_the_engine_is_explained() {
        let words = |table: &[Word]| table.iter().map(|word| word.name).collect::<Vec<_>>();
        assert_eq!(named("functions.rs", &["\n    (\""]), words(FUNCTIONS));
        let calls = ["register_filter(\"", " lines(\"", " quotes(\"", " validator(\""];
        let mut filters = named("filters.rs", &calls);
        // `safe` is an error; the others are Tera's, and only stricter.
        filters.retain(|name| !["safe", "join", "replace"].contains(&name.as_str()));
        assert_eq!(filters, words(FILTERS));
    }
}
