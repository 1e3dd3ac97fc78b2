//! Requests by chance: of the words that a configuration speaks of, and of some that it does not.

use std::fmt::Write as _;

use crate::chaos::Random;

/// What the requests to a configuration are made of.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary {
    /// Methods; those that have a body get one.
    pub methods: &'static [&'static str],
    /// Hosts besides the service's own name.
    pub hosts: &'static [&'static str],
    /// Beginnings of paths.
    pub paths: &'static [&'static str],
    /// What may come behind.
    pub tails: &'static [&'static str],
    /// Queries, without the question mark.
    pub queries: &'static [&'static str],
    /// Fields, and their values; each is there or is not.
    pub headers: &'static [(&'static str, &'static [&'static str])],
}

/// What every configuration is asked with unless it says otherwise.
pub const PLAIN: Vocabulary = Vocabulary {
    methods: &["GET", "GET", "POST", "HEAD", "PUT"],
    hosts: &[],
    paths: &["/"],
    tails: &["", "", "/", "/x", "x", "/x/y", "/%41b", "/a%20b", "/./x", "/x/../y", "/;p=1", "/~u", "/%C3%A9"],
    queries: &["", "", "a=b", "x=%2F&y", "q=1"],
    headers: &[("x-other", &["a", "b"]), ("accept", &["*/*", "text/html, application/json;q=0.9"])],
};

fn pick<'a, T: ?Sized>(random: &mut Random, from: &[&'a T]) -> &'a T {
    from[usize::try_from(random.within(0, from.len() as u64)).unwrap_or_default()]
}

/// One request, as HTTP/1.1; `id` is a name that no other has.
pub fn request(vocabulary: &Vocabulary, own: &str, random: &mut Random, id: &str) -> String {
    let method = pick(random, vocabulary.methods);
    let path = pick(random, vocabulary.paths);
    let tail = if random.within(0, 2) == 0 { "" } else { pick(random, vocabulary.tails) };
    let query = pick(random, vocabulary.queries);
    let mark = if query.is_empty() { "" } else { "?" };
    let host = match vocabulary.hosts {
        [] => own,
        _ if random.within(0, 2) == 0 => own,
        hosts => pick(random, hosts),
    };
    let mut text = format!("{method} {path}{tail}{mark}{query} HTTP/1.1\r\nhost: {host}\r\nx-id: {id}\r\n");
    for (name, values) in vocabulary.headers {
        if random.within(0, 3) == 0 {
            let _ = write!(text, "{name}: {}\r\n", pick(random, values));
        }
    }
    if matches!(method, "POST" | "PUT" | "PATCH") {
        let _ = write!(text, "content-length: 5\r\n\r\nhello");
    } else {
        text.push_str("\r\n");
    }
    text
}
