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
}

const KEYS: &[(&str, &str)] = &[
    ("/a/1", "one"),
    ("/a/2", "two"),
    ("/a/d/x", "deep"),
    ("/bad", "{oops"),
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
    Bundle { files: files.iter().map(file).collect() }
}

fn render(text: &str) -> Result<String, Box<Diagnostic>> {
    let Rendered { outcome, .. } =
        TeraEngine::new().render(&bundle(&[("t.tera", text)]), session());
    outcome.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn functions_and_filters() {
    let cases = [
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
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).map_err(|e| e.to_string()), Ok(expected.to_owned()), "{text}");
    }
}

#[test]
fn the_line_guard_lets_pass_what_is_meant() {
    let cases = [
        ("a\n\tb{{ getv(key='/trailing') | trim }}\n", "a\n\tbkey\n"),
        ("{{ getv(key='/evil') | multiline }}", "web\nuser root"),
        ("{{ getv(key='/evil') | multiline | indent(width=2) }}", "web\n  user root"),
        ("{{ getv(key='/evil') | to_json }}", "\"web\\nuser root\""),
        ("{% set x %}a\n{{ getv(key='/a/1') }}\n{% endset %}{{ x }}", "a\none\n"),
        ("{% if getv(key='/evil') is containing(pat='root') %}seen{% endif %}", "seen"),
        ("{{ getv(key='/evil') | split(pat='\n') | first }}", "web"),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).map_err(|e| e.to_string()), Ok(expected.to_owned()), "{text}");
    }
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
        ("{{ throw(message='no') }}", "templates/t.tera:1:4", None, "no"),
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
