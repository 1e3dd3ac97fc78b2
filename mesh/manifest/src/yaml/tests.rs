//! Tables: text in; trees, or faults at their places, out.

use super::{MAX_DEPTH, documents};

/// Every document as JSON, or `-` where it could not be read.
fn read(text: &str) -> Vec<String> {
    let shown =
        |document: super::Document| document.root.map_or("-".to_owned(), |root| root.to_json().to_string());
    documents(text).into_iter().map(shown).collect()
}

/// Every fault as `LINE:COLUMN message => fix`.
fn faults(text: &str) -> Vec<String> {
    let all = documents(text).into_iter().flat_map(|document| document.faults);
    all.map(|fault| {
        let fix = fault.fix.map(|fix| format!(" => {fix}")).unwrap_or_default();
        format!("{}:{} {}{fix}", fault.at.line, fault.at.column, fault.message)
    })
    .collect()
}

#[test]
fn documents_are_read() {
    for (text, expected) in [
        ("", &[][..]),
        ("# nothing\n---\n---\n# nothing\n", &[]),
        ("a: b\n---\nc: d\n", &[r#"{"a":"b"}"#, r#"{"c":"d"}"#]),
        ("--- # a comment\na: b\n...\nc: d\n", &[r#"{"a":"b"}"#, r#"{"c":"d"}"#]),
        ("%YAML 1.2\n---\na: b\n", &[r#"{"a":"b"}"#]),
        ("\u{feff}a: b\r\nc:\r\n  - d\r\n", &[r#"{"a":"b","c":["d"]}"#]),
        ("text: |\n  ---x\n  y\n", &[r#"{"text":"---x\ny\n"}"#]),
        (
            "a: yes\nb: \"yes\"\nc: 0644\nd: ~\ne: !!str 12\n",
            &[r#"{"a":true,"b":"yes","c":420,"d":null,"e":"12"}"#],
        ),
        ("8080: STRICT\non: x\n", &[r#"{"8080":"STRICT","on":"x"}"#]),
        (
            "base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n",
            &[r#"{"base":{"x":1,"y":2},"own":{"y":3,"x":1}}"#],
        ),
        ("{\"a\": \"\\ud83d\\ude00\"}", &[r#"{"a":"😀"}"#]),
        ("{\n\t\"a\": [1, 2.5]\n}\n", &[r#"{"a":[1,2.5]}"#]),
        ("a: [1\n---\nb: 2\n", &["-", r#"{"b":2}"#]),
    ] {
        assert_eq!(read(text), expected, "{text:?}");
    }
}

#[test]
fn broken_text_is_explained_where_it_breaks() {
    for (text, expected) in [
        (
            "spec:\n  selector:\n    matchLabels:\n      app: x\n   action: ALLOW\n",
            "5:4 `action` is indented by 3, which fits no line above it => indent it by 2, like `selector` in line 2",
        ),
        (
            "rules:\n- from:\n  - source:\n      principals: [\"a\"]\n   to:\n   - operation: {}\n",
            "5:4 `to` is indented by 3, which fits no line above it => indent it by 2, like `from` in line 2",
        ),
        (
            "a:\n  b: 1\n   c: 2\n",
            "3:4 `c` is indented by 3, but the line above it is complete => indent it by 2, like `b` in line 2",
        ),
        (
            "spec:\n\ta: 1\n",
            "2:1 a tab in the indentation; YAML wants spaces => replace each tab by two spaces",
        ),
        (
            "spec:\n  rules:\n  \t- from: 1\n",
            "3:3 a tab in the indentation; YAML wants spaces => replace each tab by two spaces",
        ),
        ("m: foo: bar\n", "1:4 a second `: ` in the value of `m` => quote the value: \"foo: bar\""),
        ("a: [1, 2\nb: c\n", "1:4 `[` is opened here and not closed in this line => close it with `]`"),
        ("a: \"abc\nb: c\n", "1:4 `\"` is opened here and not closed in this line => close it with `\"`"),
        ("a:b\nc: d\n", "1:2 no space after the `:` of `a` => write `a: b`"),
        (
            "name: {{ .Values.x }}\n",
            "1:8 a key must be a plain word, not a list or an object => quote it if it begins with `{` or `[`; a \
             template (`{{ … }}`) has to be rendered first",
        ),
        ("a: *nobody\n", "1:4 not valid YAML: while parsing node, found unknown anchor"),
        ("a: &x [*x]\n", "1:8 this alias stands inside the value that it names"),
        (
            "a: b\n---\nc: d\n e: f: g\n",
            "4:2 `e` is indented by 1, but the line above it is complete => indent it by 0, like `c` in line 3",
        ),
        ("{\"a\" 1}", "1:6 not valid JSON: expected `:`"),
        (
            "x:\n- a: 1\n  a: 2\n",
            "3:3 duplicate key `a`: it stands already at line 2 => keep one `a`; a reader would take only one of the two",
        ),
    ] {
        assert_eq!(faults(text), [expected], "{text:?}");
    }
}

#[test]
fn duplicate_keys_name_their_path() {
    let documents = documents("spec:\n  rules:\n  - to: 1\n  - from: 1\n    from: 2\n");
    assert_eq!(documents[0].faults[0].field, "spec.rules[1].from");
    assert!(documents[0].root.is_some(), "a duplicate key leaves the document readable");
}

#[test]
fn growth_is_bounded() {
    let deep = "[".repeat(MAX_DEPTH + 1);
    assert_eq!(faults(&deep).len(), 1, "too deep");
    let mut laughs = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*l{}", level - 1);
        laughs.push_str(&format!("l{level}: &l{level} [{}]\n", [before.as_str(); 10].join(", ")));
    }
    let faults = faults(&laughs);
    assert!(faults[0].contains("too many values"), "{faults:?}");
}

#[test]
fn places_are_those_of_the_text() {
    let text = "# comment\n---\nspec:\n  rules:\n  - from: []\n    to:\n    - operation:\n        methods: [\"GET\"]\n";
    let root = documents(text).remove(0).root.expect("it is YAML");
    let rule = root.get("spec").and_then(|spec| spec.get("rules")).expect("it is there").items()[0].clone();
    assert_eq!((rule.at.line, rule.at.column), (5, 5));
    let to = rule.entry("to").expect("it is there");
    assert_eq!((to.at.line, to.at.column), (6, 5));
}
