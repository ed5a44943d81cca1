//! The Tera engine over fixed keys, without a worker process.
//!
//! What: templates in, bytes or errors out, as tables. Why here: the guard and the error texts
//! are about Tera's behaviour, and the worker adds nothing to them. The conformance cases and the
//! process limits are in `tests/render.rs`.

use super::*;
use crate::base::id::Revision;
use crate::base::path::KeyPath;
use crate::base::range::KeyRange;
use crate::render::engine::Surroundings;
use crate::render::engine::view::{Fetch, View};
use crate::render::scope::Scope;
use crate::render::source::Item;

struct Fixed(Vec<Item>);

impl Fetch for Fixed {
    fn fetch(&mut self, range: &KeyRange) -> Result<Vec<Item>, String> {
        Ok(self.0.iter().filter(|item| range.contains(&item.key)).cloned().collect())
    }

    fn lookup(&mut self, host: &str) -> Result<Vec<String>, String> {
        Ok(if host == "web1" { vec!["192.0.2.1".into(), "::1".into()] } else { Vec::new() })
    }
}

const KEYS: &[(&str, &str)] = &[
    ("/a/1", "one"),
    ("/a/2", "two"),
    ("/a/d/x", "deep"),
    ("/bad", "{oops"),
    ("/clean/1", "a,b"),
    ("/clean/2", "c"),
    ("/comma", ","),
    ("/hosts/1", "{\"host\":\"web1\",\"port\":80}"),
    ("/hosts/2", "{\"host\":\"no host\",\"port\":99999}"),
    ("/empty", ""),
    ("/evil", "web\nuser root"),
    ("/evil-json", "{\"name\":\"x\\nuser root\",\"z\":1,\"a\":[1,2.5,\"q\"]}"),
    ("/evil-key", "{\"a\\nuser root\":1}"),
    ("/evil64", "YQpi"),
    ("/port", "8080"),
    ("/tab", "a\tb"),
    ("/trailing", "key\n"),
    ("/nul", "a\0b"),
];

fn session() -> Session {
    let items = KEYS.iter().map(|(key, value)| Item {
        key: (*key).into(),
        value: (*value).into(),
        mod_revision: Revision(5),
        ttl_seconds: None,
    });
    let mut items: Vec<Item> = items.collect();
    items.sort_by(|a, b| a.key.cmp(&b.key));
    let scope = Scope::new(KeyPath::root(), &[]).unwrap();
    let view = View::new(scope, Vec::new(), Box::new(Fixed(items)));
    let surroundings = Surroundings {
        revision: Revision(42),
        node: vec![("name".into(), "n1".into())],
        environment: vec![("SET".into(), "yes".into()), ("EMPTY".into(), String::new())],
    };
    Session { view, surroundings, failure: None }
}

fn bundle(files: &[(&str, &str)]) -> Bundle {
    let file = |(name, text): &(&str, &str)| TemplateFile {
        name: (*name).to_owned(),
        path: format!("templates/{name}"),
        text: (*text).to_owned(),
    };
    Bundle { files: files.iter().map(file).collect(), trim_blocks: false }
}

fn render(text: &str) -> Result<String, Box<Diagnostic>> {
    let Rendered { outcome, .. } =
        TeraEngine::new().render(&bundle(&[("t.tera", text)]), session());
    outcome.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Each template and what it makes.
#[track_caller]
fn all_make(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let made = render(text).map_err(|error| error.to_string());
        assert_eq!(made.as_deref(), Ok(*expected), "{text}");
    }
}

#[test]
fn functions_and_filters() {
    all_make(&[
        ("{{ getv(key='/a/1') }}", "one"),
        ("{{ getv(key='a/1/') }}", "one"),
        ("{{ getv(key='/none', default='d') }}", "d"),
        ("[{{ getv(key='/empty', default='d') }}]", "[]"),
        ("{{ 'foob' | b64encode }} {{ 'Zm\n9vYh==\n' | b64decode }}", "Zm9vYg== foob"),
        ("{% set k = get(key='/a/2') %}{{ k.name }} {{ k.mod_revision }}", "2 5"),
        (
            "{% for k in gets(pattern='/a/*') %}{{ k.key }}={{ k.value }};{% endfor %}",
            "/a/1=one;/a/2=two;",
        ),
        ("{{ getvs(pattern='/a/*') | join(sep=',') }}", "one,two"),
        ("{{ gets(pattern='/none/*') | length }}", "0"),
        ("{{ ls(path='/a') | join(sep=',') }} {{ lsdir(path='/a') | join(sep=',') }}", "1,2,d d"),
        ("{{ ls(path='/') | length > 5 }} {{ ls(path='/a/1') | join(sep=',') }}", "true 1"),
        (
            "{{ exists(key='/a/1') }} {{ exists(key='/a') }} {{ exists(key='/empty') }}",
            "true false true",
        ),
        (
            "{{ getenv(name='SET') }}{{ getenv(name='HOME', default='-') }}{{ getenv(name='EMPTY', default='e') }}",
            "yes-e",
        ),
        ("{% set n = node() %}{{ n.name }} {{ revision() }}", "n1 42"),
        ("{% set k = get(key='/port') %}{{ k.json + 1 }}", "8081"),
        (
            "{% set j = getv(key='/evil-json') | from_json %}{{ j.a | to_json }} {{ j.z }}",
            "[1,2.5,\"q\"] 1",
        ),
        (
            "{{ getv(key='/evil-json') | from_json | to_json }}",
            "{\"a\":[1,2.5,\"q\"],\"name\":\"x\\nuser root\",\"z\":1}",
        ),
        (
            "{{ [1,{'b':'x','a':2}] | to_json(pretty=true) }}",
            "[\n  1,\n  {\n    \"a\": 2,\n    \"b\": \"x\"\n  }\n]",
        ),
        (
            "{{ '/x/y' | base }} {{ '/x/y' | dir }} {{ 'a' | b64encode }} {{ 'YQ==' | b64decode }}",
            "y /x YQ== a",
        ),
        ("{{ ['w10','w2'] | natsort | join(sep=' ') }}", "w2 w10"),
        (
            "{{ getv(key='/port') | port }} {{ '::1' | ip }} {{ 'a.b' | host }} {{ 'a_b' | ident }}",
            "8080 ::1 a.b a_b",
        ),
        ("{{ 'a b' | shell_quote }} {{ 'a$' | env_quote }}", "'a b' \"a\\$\""),
        ("<{{ '<&\">' }}>\n", "<<&\">>\n"),
    ]);
}

#[test]
fn lookups_formats_and_quotes() {
    all_make(&[
        (
            "{{ lookup_ip(name='web1') | join(sep=' ') }} {{ lookup_ip(name='no host') | length }}",
            "192.0.2.1 ::1 0",
        ),
        ("{{ 'a: {b: [1, x]}' | from_yaml | to_yaml }}|", "a:\n  b:\n    - 1\n    - x|"),
        ("{{ {'b': {'c': 1}, 'a': 'x'} | to_toml }}|", "a = \"x\"\n\n[b]\nc = 1|"),
        (
            "{{ getv(key='/evil-json') | from_json | to_yaml | indent(width=2) }}",
            "a:\n    - 1\n    - 2.5\n    - q\n  name: \"x\\nuser root\"\n  z: 1",
        ),
        ("{{ 'abc' | sha256 | truncate(length=16, end='') }}", "ba7816bf8f01cfea"),
        ("{{ 'web-7' | regex_replace(pattern='([a-z]+)-(?P<n>[0-9]+)', rep='$n.$1') }}", "7.web"),
        ("{{ 'grün' | regex_replace(pattern='[^a-z]', rep='') }}", "grn"),
        (
            "{{ \"it's\" | quote_haproxy }} {{ 'a b' | quote_nginx }} {{ '' | quote_sh }}",
            "'it'\\''s' \"a b\" ''",
        ),
        (
            "{{ 9223372036854775807 | to_json }} {{ 1.0 | to_json }} {{ 7 | quote_sh }}",
            "9223372036854775807 1.0 7",
        ),
    ]);
}

#[test]
fn the_line_guard_lets_pass_what_is_meant() {
    all_make(&[
        ("a\n\tb{{ getv(key='/trailing') | trim }}\n", "a\n\tbkey\n"),
        ("{{ getv(key='/evil') | multiline }}", "web\nuser root"),
        ("{{ getv(key='/evil') | multiline | indent(width=2) }}", "web\n  user root"),
        ("{{ getv(key='/evil') | to_json }}", "\"web\\nuser root\""),
        ("{% set x %}a\n{{ getv(key='/a/1') }}\n{% endset %}{{ x }}", "a\none\n"),
        ("{% if getv(key='/evil') is containing(pat='root') %}seen{% endif %}", "seen"),
        ("{{ getv(key='/evil') | split(pat='\n') | first }}", "web"),
        ("{{ getvs(pattern='/clean/*') | join(sep=\"\\n\") }}", "a,b\nc"),
        ("{{ getv(key='/clean/1') | replace(from=',', to=\"\\n\") }}", "a\nb"),
        ("{{ getv(key='/clean/1') | regex_replace(pattern=',', rep=\"\\n\") | upper }}", "A\nB"),
        ("{% set nl = \"\\n\" %}{{ ls(path='/clean') | join(sep=nl) }}", "1\n2"),
        ("{{ \"a\tb\" }}{{ getv(key='/none', default=\"\\r\\n\") }}", "a\tb\r\n"),
        ("{{ 'a\nb' | indent(indentation=\"\\t\", width=1) }}", "a\n\tb"),
        ("{{ [getv(key='/evil'), 'x'] | join(sep=\"\\n\") | multiline }}", "web\nuser root\nx"),
        ("{% if 'a\nb' is containing(pat=\"\\n\") and \"\\n\" == '\n' %}same{% endif %}", "same"),
    ]);
}

#[test]
fn the_line_guard_has_no_way_around() {
    let evil = [
        "{{ getv(key='/evil') }}",
        "{{ getv(key='/tab') }}",
        "{{ getv(key='/nul') }}",
        "{{ getv(key='/trailing') }}",
        "{{ getv(key='/evil') | upper }}",
        "{{ getv(key='/evil') | escape }}",
        "{{ getv(key='/evil') | safe }}",
        "{{ getv(key='/evil') | env_quote }}",
        "{{ getv(key='/evil') | shell_quote }}",
        "{{ getv(key='/nul') | multiline }}",
        "{{ getv(key='/evil64') | b64decode }}",
        "{{ getv(key='/evil-json') | from_json | get(key='name') }}",
        "{% set j = getv(key='/evil-json') | from_json %}{{ j.name }}",
        "{% set k = get(key='/evil-json') %}{{ k.json['name'] }}",
        "{{ 'a' ~ getv(key='/evil') }}",
        "{{ getvs(pattern='/*') | join(sep=' ') }}",
        "{{ ['a', 'b'] | join(sep=getv(key='/evil')) }}",
        "{{ 'X' | replace(from='X', to=getv(key='/evil')) }}",
        "{{ 'X' | multiline | replace(from='X', to=getv(key='/evil')) }}",
        "{% set x %}X{% endset %}{{ x | replace(from='X', to=getv(key='/evil')) }}",
        "{% set x %}{{ getv(key='/evil') }}{% endset %}{{ x }}",
        "{% filter replace(from='X', to=getv(key='/evil')) %}X{% endfilter %}",
        "{% set x %}X{% endset %}{{ x ~ getv(key='/evil') }}",
        "{{ 'abc' | truncate(length=1, end=getv(key='/evil')) }}",
        "{{ getv(key='/none', default=getv(key='/evil')) }}",
        "{% for line in [getv(key='/evil')] %}{{ line }}{% endfor %}",
        "{{ 'y' if false else getv(key='/evil') }}",
        "{% for k, v in getv(key='/evil-key') | from_json %}{{ k }}{% endfor %}",
        "{{ getv(key='/evil') | multiline | str | lower | title | trim ~ getv(key='/evil') }}",
        "{{ getvs(pattern='/evi*') | join(sep=\"\\n\") }}",
        "{{ getvs(pattern='/evi*') | join(sep=\"\\n\") | replace(from=',', to=\"\\n\") }}",
        "{{ getv(key='/clean/1') | replace(from=getv(key='/comma'), to=\"\\n\") }}",
        "{{ getv(key='/clean/1') | regex_replace(pattern=getv(key='/comma'), rep=\"\\n\") }}",
        "{{ getv(key='/evil') | replace(from=',', to=\"\\n\") }}",
        "{{ getvs(pattern='/clean/*') | join(sep=' ') | replace(from=getv(key='/comma'), to=\"\\n\") }}",
        "{{ 'X' | regex_replace(pattern='X', rep=getv(key='/evil')) }}",
        "{{ \"\\n\" | replace(from=\"\\n\", to=getv(key='/evil')) }}",
        "{{ \"\\n\" ~ getv(key='/a/1') }}",
        "{{ getvs(pattern='/clean/*') | join(sep=\"\\n\" ~ getv(key='/comma')) }}",
        "{{ getvs(pattern='/clean/*') | join(sep=\"\\n\") ~ getv(key='/tab') }}",
        "{{ getv(key='/evil') | quote_haproxy }}",
        "{{ getv(key='/evil') | quote_nginx }}",
        "{{ getv(key='/evil') | quote_sh }}",
        "{{ getv(key='/evil-json') | from_yaml | get(key='name') }}",
        "{{ getv(key='/evil') | to_json | from_yaml }}",
        "{{ {'a': 1} | to_yaml | replace(from='a', to=getv(key='/evil')) }}",
        "{% component c(x) %}{{ x }}{% endcomponent c %}{{ <c x={getv(key='/evil')} /> }}",
    ];
    for text in evil {
        let error = render(text).expect_err(text).to_string();
        let refused = ["add lines to the file", "`safe`", "`multiline` does not", "line guard"];
        assert!(refused.iter().any(|reason| error.contains(reason)), "{text}: {error}");
    }
}

#[test]
fn a_refusal_names_place_and_key() {
    let error = render("line\n  server {{ 'x' }} {{getv(key='/evil') | upper}}\n").unwrap_err();
    let expected = "error: a stored value contains a line feed (U+000A): it could add lines to the file\n --> templates/t.tera:2:20\n  |\n2 |   server {{ 'x' }} {{getv(key='/evil') | upper}}\n  |                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  = key: /evil\n  = help: correct the value, or let it span lines on purpose with `| multiline`";
    assert_eq!(error.to_string(), expected);
    let text = "{# {{ #}{% raw %}{{ {% endraw %}{% set j = getv(key='/evil-json') | from_json -%}\n{{- j.name -}}";
    let error = render(text).unwrap_err();
    assert_eq!(error.key.as_deref(), Some("/evil-json"));
    assert_eq!(
        error.place.as_ref().map(|place| (place.line, place.column)),
        Some((2, 1)),
        "{error}"
    );
}

#[test]
fn a_refusal_names_only_what_the_template_was_given() {
    // One range holds all keys; the template was given two of them.
    for (text, key) in [
        ("{{ getvs(pattern='/t*') | join(sep=' ') }}", Some("/tab or /trailing")),
        ("{{ getvs(pattern='/t*') | first }}", Some("/tab")),
        ("{% set a = getv(key='/tab') %}{{ getv(key='/evil') | upper }}", Some("/evil")),
        (
            "{% set a = getv(key='/tab') %}{{ getv(key='/evil') | split(pat='b') | last }}",
            Some("/evil"),
        ),
        ("{{ getv(key='/evil64') | b64decode }}", Some("/evil64")),
        ("{{ getvs(pattern='/clean/*') | join(sep=',') ~ \"\\n\" }}", None),
        ("{{ 'a\nb' | str }}", None),
    ] {
        let error = render(text).unwrap_err();
        assert_eq!(error.key.as_deref(), key, "{text}: {error}");
        assert_eq!(error.message.contains("stored value"), key.is_some(), "{text}: {error}");
    }
}

#[test]
fn a_filter_that_fails_names_the_key() {
    for (text, key) in [
        (
            "{% for at in gets(pattern='/hosts/*') %}{{ at.json.host | host }}{% endfor %}",
            "/hosts/2",
        ),
        (
            "{% for at in gets(pattern='/hosts/*') %}{{ at.json.port | port }}{% endfor %}",
            "/hosts/2",
        ),
        (
            "{% for v in getvs(pattern='/hosts/*') %}{% set h = v | from_json %}{{ h.host | ident }}{% endfor %}",
            "/hosts/2",
        ),
        ("{{ getv(key='/a/1') | ip }}", "/a/1"),
        ("{{ getv(key='/bad') | b64decode }}", "/bad"),
        ("{{ getv(key='/bad') | from_yaml }}", "/bad"),
        ("{{ getv(key='/clean/1') | split(pat=',') | first | port }}", "/clean/1"),
    ] {
        let error = render(text).unwrap_err();
        assert_eq!(error.key.as_deref(), Some(key), "{text}: {error}");
        assert!(error.help.is_some(), "{error}");
    }
}

#[test]
fn trimmed_blocks_leave_no_lines_and_true_places() {
    let text =
        "a\n  {% for k in ls(path='/a') %}\n  {{ k }}\n  {% endfor %}\n{# c #}\nz {{ x.y }}\n";
    let mut files = bundle(&[("t.tera", text)]);
    files.trim_blocks = true;
    let rendered = TeraEngine::new().render(&files, session()).outcome.unwrap_err();
    let place = rendered.place.as_ref().unwrap();
    assert_eq!((place.line, place.column), (6, 6), "{rendered}");
    for (more, line, column) in [
        ("  {% set x = 1 | nope %}\n", 6, 18),
        ("  {% set x = getv(kee='x') %}\n", 6, 19),
        ("  {% set q = 1 %}\n{{ 'x' | nope }}", 7, 10),
        ("  {% if true %}\n{{ getv(key='/evil') }}{% endif %}", 7, 1),
        ("  {% if getv(key='/none') %}\n{% endif %}", 6, 9),
    ] {
        let text = text.replace("z {{ x.y }}\n", more);
        files.files[0].text = text.clone();
        let error = TeraEngine::new().render(&files, session()).outcome.unwrap_err();
        let place = error.place.as_ref().unwrap();
        assert_eq!((place.line, place.column), (line, column), "{error}");
    }
    files.files[0].text = text.replace("{{ x.y }}", "");
    let rendered = TeraEngine::new().render(&files, session()).outcome.unwrap();
    assert_eq!(String::from_utf8(rendered).unwrap(), "a\n  1\n  2\n  d\nz \n");
}

#[test]
fn a_refusal_in_an_include_names_that_file() {
    let files = bundle(&[
        ("main.tera", "{{ 'ok' }}\n{% include 'part.tera' %}"),
        ("part.tera", "x\n{{ getv(key='/evil') }}"),
    ]);
    let Rendered { outcome, .. } = TeraEngine::new().render(&files, session());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("--> templates/part.tera:2:1\n"), "{error}");
}

#[test]
fn errors_show_place_key_and_help() {
    let cases = [
        ("a\n{{ getv(key='/none') }}", "templates/t.tera:2:4", Some("/none"), "default="),
        ("{% set k = get(key='/none') %}", "templates/t.tera:1:12", Some("/none"), "exists("),
        ("{{ gets(pattern='/[') }}", "templates/t.tera:1:4", Some("/["), "malformed pattern"),
        (
            "{% set j = getv(key='/bad') | from_json %}",
            "templates/t.tera:1:",
            Some("/bad"),
            "not valid JSON",
        ),
        ("\n{{ x.y }}", "templates/t.tera:2:4", None, "`x` is not defined"),
        ("{{ 'a' | no_such_filter }}", "templates/t.tera:1:", None, "no_such_filter"),
        ("{% for x in y %}", "templates/t.tera:1:", None, ""),
        ("{{ 'a b' | ident }}", "templates/t.tera:1:", None, "`a b` is not a name"),
        ("{{ throw(message='no') }}", "templates/t.tera:1:4", None, "the template itself stops"),
        ("{{ getv('/x') }}", "templates/t.tera:1:9", None, "write getv(key='/x')"),
        ("{{ getv(key='/x', defalt='d') }}", "t.tera:1:19", None, "did you mean `default`?"),
        ("{{ 'a' | no_such_filter(x=1) }}", "templates/t.tera:1:", None, "Unknown filter"),
        ("{{ '-rf' | ident }}", "templates/t.tera:1:", None, "leave the filter out"),
        ("{{ [1] | to_toml }}", "templates/t.tera:1:", None, "a document is a map"),
        ("{{ 'a' | regex_replace(pattern='(', rep='') }}", "t.tera:1:", None, "unclosed group"),
        ("{{ zz }}{{ 'a\nb' }}", "templates/t.tera:1:4", None, "`zz` is not defined.\n"),
    ];
    for (text, place, key, more) in cases {
        let error = render(text).expect_err(text);
        let shown = error.to_string();
        assert!(shown.contains(place) && shown.contains(more), "{text}: {shown}");
        assert!(shown.contains('^') && error.key.as_deref() == key, "{text}: {shown}");
    }
}

#[test]
fn parsed_templates_are_kept_until_they_change() {
    let mut engine = TeraEngine::new();
    for (text, expected) in [("a", "a"), ("a", "a"), ("b", "b"), ("{{", ""), ("c", "c")] {
        let Rendered { outcome, .. } = engine.render(&bundle(&[("t.tera", text)]), session());
        assert_eq!(String::from_utf8(outcome.unwrap_or_default()).unwrap(), expected);
        assert!(engine.parsed.len() <= 1);
    }
}

#[test]
fn output_is_bounded() {
    let loops = "{% for a in range(end=1000) %}{% for b in range(end=1000) %}";
    let text = format!("{loops}{}{{% endfor %}}{{% endfor %}}", "x".repeat(100));
    let error = render(&text).unwrap_err().to_string();
    assert!(error.contains("larger than 67108864 bytes"), "{error}");
}
