//! Which paths rules mean.

use super::{PathMatch, Template};

#[test]
fn a_path_is_compared_as_written() {
    for (pattern, like, unlike) in [
        ("/a", &["/a"][..], &["/a/", "/A", "/ab", "/"][..]),
        ("/a*", &["/a", "/ab", "/a/b/c"], &["/b", "/"]),
        ("*.html", &["/a.html", "/a/b.html"], &["/a.htm", "/a.html/"]),
        ("*", &["/", "/a", "*"], &[]),
        ("/*", &["/", "/a"], &["*"]),
        ("/caf%c3%a9", &["/caf%C3%A9"], &["/caf"]),
        ("/café*", &["/caf%C3%A9/x"], &["/caf"]),
        // A star in the middle is a star.
        ("/a*b", &["/a*b"], &["/axb"]),
        ("/{*}", &["/a", "/a.b"], &["/", "/a/", "/a/b"]),
        ("/a/{*}", &["/a/b"], &["/a/", "/a", "/a/b/c", "/b/b"]),
        ("/a/{*}/c", &["/a/b/c"], &["/a/b/d", "/a/b/b/c", "/a/c", "/a//c"]),
        ("/{*}/{*}/c/{*}", &["/a/b/c/d"], &["/a/b/c", "/a/b/d/c"]),
        ("/a/{*}/", &["/a/b/"], &["/a/b", "/a//"]),
        ("/a/{**}", &["/a/", "/a/b", "/a/b/c"], &["/a", "/b"]),
        ("/{**}", &["/", "/a/b"], &["*"]),
        ("/a/{**}/c", &["/a/b/c", "/a/b/b/c", "/a//c"], &["/a/c", "/a/b"]),
        ("/a/{**}.jpg", &["/a/b.jpg", "/a/.jpg", "/a/b/c.jpg"], &["/a/b.png"]),
        ("/{*}/b/{**}", &["/a/b/", "/a/b/c/d"], &["/a/c/b", "//b/"]),
        ("/caf%c3%a9/{*}", &["/caf%C3%A9/x"], &["/cafe/x"]),
    ] {
        let read = PathMatch::parse(pattern).unwrap();
        for path in like {
            assert!(read.matches(path), "{pattern} {path}");
            assert!(read.beginning().is_none_or(|start| path.starts_with(&**start)), "{pattern} {path}");
        }
        for path in unlike {
            assert!(!read.matches(path), "{pattern} {path}");
        }
    }
}

#[test]
fn what_is_no_template_is_refused() {
    for text in [
        "a/{*}",
        "/a{*}",
        "/{*}a",
        "/{*}{*}",
        "/{*}{**}",
        "/a{**}",
        "/{**}/{*}",
        "/{**}/{**}",
        "/{a}/{*}",
        "/{*}/*",
        "/{*}/{",
        "/{*}}",
        "/{**}*",
        "{*}",
        "/{*}/a*",
    ] {
        let error = PathMatch::parse(text).unwrap_err();
        assert!(error.to_string().contains("is not a path template: "), "{text}: {error}");
    }
    assert_eq!(Template::parse("/a/{*}/b").unwrap().to_string(), "/a/{*}/b");
}
