//! Patterns as RE2 reads them, and those that are refused.

use proptest::prelude::*;

use super::{Allowance, InvalidRegex, MAX_PATTERN, Regex, Substitution};

#[test]
fn means_what_it_means_in_re2() {
    // Pattern, texts that match as a whole, texts that do not.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
    let table: [Row<'_>; 32] = [
        ("a.c", &["abc", "a/c"], &["ac", "xabc", "abcx", "a\nc"]),
        ("a|bc", &["a", "bc"], &["ac", "abc", "b"]),
        (".*", &["", "x"], &["a\nb"]),
        ("(?s).*", &["a\nb"], &[]),
        ("^a$", &["a"], &["a\n", "ba"]),
        ("(?i)abc", &["aBC"], &["abd"]),
        ("(?i:a)b", &["Ab"], &["AB"]),
        ("a{2}", &["aa"], &["a", "aaa"]),
        ("a{2,}", &["aa", "aaaa"], &["a"]),
        ("a{1,2}", &["a", "aa"], &["aaa"]),
        ("a{0,1000}", &["", "aaa"], &["b"]),
        // Braces that repeat nothing stand for themselves.
        ("/users/{id}", &["/users/{id}"], &["/users/1"]),
        ("a{,2}", &["a{,2}"], &["aa"]),
        ("a{", &["a{"], &["a"]),
        // Classes are ASCII.
        (r"\d", &["7"], &["\u{0663}", "x"]),
        (r"\w+", &["a_9"], &["\u{e4}"]),
        ("[[:alpha:]]+", &["aZ"], &["a1"]),
        ("[^[:digit:]]", &["a"], &["1"]),
        // No sets within sets.
        ("[[a]", &["[", "a"], &["b"]),
        ("[a&&b]+", &["a&b"], &["c"]),
        ("[[:alpha:]&&1]+", &["a&1"], &["2"]),
        ("[a~~b]", &["~"], &["c"]),
        ("[]a]", &["]", "a"], &["b"]),
        (r"[\]a-c]", &["]", "b"], &["-"]),
        // Escapes.
        (r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]),
        (r"\Qa.b", &["a.b"], &["axb"]),
        (r"\<a\>", &["<a>"], &["a"]),
        (r"\x41\x{42}\103\0", &["ABC\0"], &["ABC"]),
        (r"\x41", &["A"], &["x41"]),
        // Three digits at most.
        (r"\1011", &["A1"], &["A"]),
        (r"\pN", &["7"], &["a"]),
        (r"(?P<n>a)(?<m>b)", &["ab"], &["a"]),
    ];
    for (pattern, matching, others) in table {
        let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in matching {
            assert!(regex.matches(text.as_bytes()), "{pattern} on {text:?}");
        }
        for text in others {
            assert!(!regex.matches(text.as_bytes()), "{pattern} on {text:?}");
        }
    }
    // Characters beyond ASCII, where the pattern names them.
    for (pattern, text) in
        [(r"\p{Greek}", "\u{03bb}"), ("[\u{e4}\u{f6}]", "\u{f6}"), ("\u{e4}+", "\u{e4}\u{e4}")]
    {
        assert!(Regex::new(pattern).unwrap().matches(text.as_bytes()), "{pattern}");
    }
    // What is no UTF-8 is no reason to fail.
    assert!(Regex::new("a.").unwrap().matches(b"a\xff"));
    assert!(Regex::new(r"\C\C").unwrap().matches("\u{e4}".as_bytes()));
}

#[test]
fn case_may_say_nothing() {
    let host = Regex::ignoring_case(r"[a-z]+\.Example\.com").unwrap();
    assert!(host.matches(b"WWW.example.COM"));
    assert!(!host.matches(b"www.example.org"));
    assert_ne!(host, Regex::new(r"[a-z]+\.Example\.com").unwrap());
    assert_eq!(host, Regex::ignoring_case(r"[a-z]+\.Example\.com").unwrap());
}

#[test]
fn refuses_what_it_cannot_read_alike() {
    let syntax = [
        "(",
        ")",
        "a)(b",
        "[",
        "[a",
        "[[:alpha",
        "*",
        r"\",
        r"\1",
        r"(a)\1",
        r"\8",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?x) a",
        "(?u)a",
        "(?",
        "(?i",
        r"\u0041",
        r"\E",
        r"[\Qa]",
        "[a--b]",
        "[+--]",
        "a{1001}",
        "a{5,1001}",
        r"\d{1001}",
        "(?P=n)",
        r"\p{Nothing}",
        r"\Z",
    ];
    for pattern in syntax {
        let refused = Regex::new(pattern);
        assert!(matches!(refused, Err(InvalidRegex::Syntax(_))), "{pattern}: {refused:?}");
    }
    assert_eq!(Regex::new(""), Err(InvalidRegex::Empty));
    assert_eq!(&**Regex::new("(?i)a|b").unwrap().pattern(), "(?i)a|b", "what was written is what is told");
    let text = Regex::new("(?=a)").unwrap_err().to_string();
    assert!(text.contains("look-around"), "{text}");
    let text = Regex::new("a)").unwrap_err().to_string();
    assert!(text.contains("group"), "{text}");
}

/// Those of one host share what there is: what is beyond is refused before it costs anything.
#[test]
fn patterns_are_bounded_together() {
    let large = "[0-9]{1000}".repeat(12);
    let mut allowance = Allowance::default();
    let fit = (0..200).take_while(|_| allowance.regex(&large).is_ok()).count();
    assert!((8..=32).contains(&fit), "{fit}");
    // There is room for none any more, not even for a small one, and none is compiled to find out.
    assert!(allowance.is_exceeded());
    assert_eq!(allowance.regex("a"), Err(InvalidRegex::Together));
    assert_eq!(allowance.substitution("a", "b"), Err(InvalidRegex::Together));
    assert!(InvalidRegex::Together.to_string().contains("8 MiB"), "{}", InvalidRegex::Together);
    // As many as a host has routes.
    let mut allowance = Allowance::default();
    for number in 0..3000 {
        assert!(allowance.regex(&format!("/users/[0-9]+/orders-{number}")).is_ok(), "{number}");
    }
    // What is too large by itself has cost time.
    let mut allowance = Allowance::default();
    let refused: Vec<_> = (0..20).map(|_| allowance.regex("(.{1000}){1000}").unwrap_err()).collect();
    assert_eq!(refused[0], InvalidRegex::TooLarge);
    assert_eq!(refused[19], InvalidRegex::Together);
}

#[test]
fn is_bounded() {
    let long = "a".repeat(MAX_PATTERN);
    assert!(Regex::new(&long).unwrap().matches(long.as_bytes()));
    assert_eq!(Regex::new(&format!("{long}a")), Err(InvalidRegex::TooLong(MAX_PATTERN + 1)));
    for pattern in
        ["((a{100}){100}){100}", "(.{1000}){1000}", r"(\p{L}{500}){50}", "((((a{99}){99}){99}){99}){99}"]
    {
        assert_eq!(Regex::new(pattern), Err(InvalidRegex::TooLarge), "{pattern}");
    }
    // Deep nesting is an error and not the end of the stack.
    let deep = format!("{}a{}", "(".repeat(2000), ")".repeat(2000));
    assert!(Regex::new(&deep).is_err());
    // What takes other engines longer than the universe has.
    let text = "a".repeat(100_000);
    assert!(!Regex::new("(a*)*(a*)*(a*)*b").unwrap().matches(text.as_bytes()));
}

#[test]
fn substitutes_as_re2_does() {
    let table = [
        ("/a", "/b", "/a/a", "/b/b"),
        ("^/a", "/b", "/a/a", "/b/a"),
        (r"^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
        ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
        ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
        ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
        ("/x", "", "/x/y", "/y"),
        (r"(a)|(b)", r"[\1\2]", "/ab", "/[a][b]"),
        ("a", r"\0\0", "/a", "/aa"),
        ("a", r"\\1", "/a", r"/\1"),
        ("z", "y", "/a", "/a"),
        // An empty match is one between all letters, and none behind another match.
        ("x*", "-", "/xx/", "-/-/-"),
    ];
    for (pattern, replacement, path, expected) in table {
        let made = Substitution::new(pattern, replacement).unwrap().replace(path);
        assert_eq!(String::from_utf8(made).unwrap(), expected, "{pattern} by {replacement} in {path}");
    }
}

#[test]
fn refuses_substitutions_without_a_meaning() {
    for (pattern, replacement) in [("a", r"\1"), ("(a)", r"\2"), ("a", r"\x"), ("a", r"\"), ("a", r"b\")] {
        let refused = Substitution::new(pattern, replacement);
        assert!(
            matches!(refused, Err(InvalidRegex::Substitution(..))),
            "{pattern} by {replacement}: {refused:?}"
        );
    }
    assert!(matches!(Substitution::new("(", "a"), Err(InvalidRegex::Syntax(_))));
    let one = Substitution::new("a", "b").unwrap();
    assert_eq!(one, Substitution::new("a", "b").unwrap());
    assert_ne!(one, Substitution::new("a", "c").unwrap());
    assert_eq!((&**one.pattern(), &**one.replacement()), ("a", "b"));
}

proptest! {
    /// A quoted text matches itself and nothing else.
    #[test]
    fn quotes_hide_all_signs(text in r"[ -\[\]-~]{1,20}", other in r"[ -~]{1,20}") {
        let regex = Regex::new(&format!(r"\Q{text}\E")).unwrap();
        prop_assert!(regex.matches(text.as_bytes()));
        prop_assert_eq!(regex.matches(other.as_bytes()), text == other);
    }

    /// Whatever is written, the answer is a pattern or a refusal.
    #[test]
    fn nothing_breaks_it(pattern in r"[\\\[\](){}?*+|^$&~:<>QE0-9a-z,.\-]{0,24}", text in "[a-z0-9]{0,12}") {
        if let Ok(regex) = Regex::new(&pattern) {
            let _ = regex.matches(text.as_bytes());
        }
        if let Ok(substitution) = Substitution::new(&pattern, r"\0") {
            prop_assert_eq!(substitution.replace(&text), text.into_bytes());
        }
    }
}
