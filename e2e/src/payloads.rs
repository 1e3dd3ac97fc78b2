//! Requests that are known to be read in two ways by proxies and servers, of which one takes for a body what the other takes
//! for a next request. `/pN` is the payload's own path, `/hidden` that of a request which is only there in one reading.

/// One of them.
#[derive(Debug, Clone)]
pub struct Payload {
    /// What it is.
    pub name: &'static str,
    /// What is sent.
    pub sent: Sent,
    /// The requests that it is to everybody who takes it: most are one.
    pub requests: usize,
}

/// In which form.
#[derive(Debug, Clone)]
pub enum Sent {
    /// Bytes of HTTP/1.1, as text of Latin-1.
    One(String),
    /// Fields, a body and trailers of HTTP/2.
    Two(Vec<(String, String)>, &'static str, Vec<(String, String)>),
}

/// A request that must never arrive.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// Fields between `POST /pN` with a host and the body behind them.
const FRAMINGS: [(&str, &str, &str); 43] = [
    ("length and chunks", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nX"),
    (
        "chunks and length",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "2c\r\nGET /hidden HTTP/1.1\r\nHost: h\r\nContent-A: x\r\n\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks by another name",
        "Transfer-Encoding: xchunked\r\nContent-Length: 4",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "a blank before the colon",
        "Transfer-Encoding : chunked\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("a tab behind the colon", "Transfer-Encoding:\tchunked\r\nContent-Length: 5", "0\r\n\r\n"),
    (
        "a vertical tab",
        "Transfer-Encoding: \u{b}chunked\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "chunks in quotes",
        "Transfer-Encoding: \"chunked\"\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "chunks with a parameter",
        "Transfer-Encoding: chunked;q=1\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "chunks, then identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("identity, then chunks", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    (
        "chunks within identity",
        "Transfer-Encoding: chunked, identity",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("an unknown coding, then chunks", "Transfer-Encoding: cow, chunked", "0\r\n\r\n"),
    ("chunks twice", "Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
    ("in capitals", "TRANSFER-ENCODING: CHUNKED\r\ncontent-length: 3", "0\r\n\r\n"),
    (
        "a folded coding",
        "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "a coding behind a bare line feed",
        "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "a coding behind a bare carriage return",
        "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5",
        "0\r\n\r\n",
    ),
    (
        "a coding whose name is folded",
        "Transfer-Encoding\n: chunked\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "a coding with a null",
        "Transfer-Encoding: chunked\0\r\nContent-Length: 5",
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("a coding with an underscore", "Transfer_Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    (
        "a coding that the connection names",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    ("a length that the connection names", "Connection: Content-Length\r\nContent-Length: 5", "hello"),
    ("the same length twice", "Content-Length: 5\r\nContent-Length: 5", "hello"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 36", HIDDEN),
    ("a list of one length", "Content-Length: 5, 5", "hello"),
    ("a list of two lengths", "Content-Length: 0, 36", HIDDEN),
    ("a length with a sign", "Content-Length: +5", "hello"),
    ("a negative length", "Content-Length: -1", HIDDEN),
    ("a length in hexadecimal", "Content-Length: 0x5", "hello"),
    ("a length with an exponent", "Content-Length: 1e1", HIDDEN),
    ("a length beyond 64 bits", "Content-Length: 18446744073709551621", "hello"),
    ("a length of nothing", "Content-Length: ", HIDDEN),
    ("a length in two words", "Content-Length: 5 6", "hello6"),
    ("a folded length", "Content-Length:\r\n 5", "hello"),
    ("a folded field", "X: a\r\n b\r\nContent-Length: 5", "hello"),
    ("a null in a value", "X: a\0b\r\nContent-Length: 5", "hello"),
    ("a carriage return in a value", "X: a\rContent-Length: 36\r\nContent-Length: 5", "hello"),
    ("a name with a blank", "X Y: 1\r\nContent-Length: 5", "hello"),
    ("no name", ": 1\r\nContent-Length: 5", "hello"),
    ("a pseudo-field", ":path: /hidden\r\nContent-Length: 5", "hello"),
    ("a field without a colon", "Nothing\r\nContent-Length: 5", "hello"),
    ("what waits for a word", "Expect: 100-continue\r\nContent-Length: 5", "hello"),
    (
        "an upgrade to HTTP/2",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5",
        "hello",
    ),
];

/// Bodies in chunks.
const CHUNKS: [(&str, &str); 19] = [
    ("chunks", "5\r\nhello\r\n0\r\n\r\n"),
    ("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n"),
    ("an extension in quotes with a line's end", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
    ("an extension with a bare line feed", "5;\nxx\r\nhello\r\n0\r\n\r\n"),
    ("an extension with a bare carriage return", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("lines that end with a line feed", "5\nhello\n0\n\n"),
    ("a size in hexadecimal with its mark", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a blank", "5 \r\nhello\r\n0\r\n\r\n"),
    ("a size with zeros", "005\r\nhello\r\n000\r\n\r\n"),
    ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a size of all bits", "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("more than the size", "3\r\nhello\r\n0\r\n\r\n"),
    ("a last chunk without its end", "5\r\nhello\r\n0\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("trailers of a length", "5\r\nhello\r\n0\r\nContent-Length: 36\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("a trailer of a host", "5\r\nhello\r\n0\r\nHost: evil\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"),
    ("a folded trailer", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
];

/// Whole heads; N stands for the number.
const HEADS: [(&str, &str, usize); 34] = [
    ("an ordinary request", "GET /pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    (
        "two ordinary requests",
        "GET /pN HTTP/1.1\r\nHost: h\r\n\r\nGET /pN/next HTTP/1.1\r\nHost: h\r\n\r\n",
        2,
    ),
    (
        "a body, and a request behind it",
        "POST /pN HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /pN/next HTTP/1.1\r\nHost: h\r\n\r\n",
        2,
    ),
    (
        "a request as the body of GET",
        "GET /pN HTTP/1.1\r\nHost: h\r\nContent-Length: 36\r\n\r\nGET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n",
        1,
    ),
    (
        "a request as the body of HEAD",
        "HEAD /pN HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
        1,
    ),
    (
        "a request as the body of OPTIONS",
        "OPTIONS /pN HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
        1,
    ),
    ("a target with its host", "GET http://h/pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target with another host", "GET http://other/pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target with a user", "GET http://user@h/pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target of another scheme", "GET gopher://h/pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target that is a host", "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("two hosts", "GET /pN HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n", 1),
    ("no host", "GET /pN HTTP/1.1\r\n\r\n", 1),
    ("a host with a path", "GET /pN HTTP/1.1\r\nHost: h/hidden\r\n\r\n", 1),
    ("a host with a blank", "GET /pN HTTP/1.1\r\nHost: h evil\r\n\r\n", 1),
    ("a list of hosts", "GET /pN HTTP/1.1\r\nHost: h, evil\r\n\r\n", 1),
    ("a host with a blank before the colon", "GET /pN HTTP/1.1\r\nHost: h\r\nHost : evil\r\n\r\n", 1),
    ("a host that the connection names", "GET /pN HTTP/1.1\r\nConnection: close, Host\r\nHost: h\r\n\r\n", 1),
    ("a blank before the first field", "GET /pN HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", 1),
    (
        "HTTP/1.0 with chunks",
        "POST /pN HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 33\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
        1,
    ),
    ("HTTP/1.0 kept open", "GET /pN HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", 1),
    ("HTTP/0.9", "GET /pN\r\n", 1),
    ("HTTP/1.2", "GET /pN HTTP/1.2\r\nHost: h\r\n\r\n", 1),
    ("HTTP/2.0 in words", "GET /pN HTTP/2.0\r\nHost: h\r\n\r\n", 1),
    ("no version", "GET /pN HTTP\r\nHost: h\r\n\r\n", 1),
    ("two blanks", "GET  /pN  HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("tabs", "GET\t/pN\tHTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a method in small letters", "get /pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target with a blank", "GET /pN HTTP/1.1 /hidden HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target with a null", "GET /pN\0/hidden HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target with a carriage return", "GET /pN\r/hidden HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("a target with an escaped line's end", "GET /pN%0d%0aX:%20y HTTP/1.1\r\nHost: h\r\n\r\n", 1),
    ("lines that end with a line feed", "GET /pN HTTP/1.1\nHost: h\n\n", 1),
    ("empty lines before", "\r\n\r\nGET /pN HTTP/1.1\r\nHost: h\r\n\r\n", 1),
];

/// Names and values.
type Fields = &'static [(&'static str, &'static str)];

/// Fields of HTTP/2 besides, or instead of, the four of `POST /pN`, and the body.
const FIELDS: [(&str, Fields, &str); 42] = [
    ("an ordinary request", &[("x", "y")], "hello"),
    ("a length", &[("content-length", "5")], "hello"),
    ("a length that is less", &[("content-length", "0")], HIDDEN),
    ("a length that is more", &[("content-length", "50")], "hello"),
    ("the same length twice", &[("content-length", "5"), ("content-length", "5")], "hello"),
    ("two lengths", &[("content-length", "0"), ("content-length", "33")], HIDDEN),
    ("a list of lengths", &[("content-length", "0, 33")], HIDDEN),
    ("a length with a sign", &[("content-length", "+5")], "hello"),
    ("a length with a blank", &[("content-length", " 5")], "hello"),
    ("chunks", &[("transfer-encoding", "chunked")], "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"),
    (
        "chunks in capitals",
        &[("Transfer-Encoding", "chunked")],
        "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("a coding with a blank", &[("transfer-encoding ", "chunked")], "0\r\n\r\n"),
    ("a connection", &[("connection", "keep-alive")], ""),
    (
        "a connection that names a length",
        &[("connection", "content-length"), ("content-length", "5")],
        "hello",
    ),
    ("a proxy's connection", &[("proxy-connection", "keep-alive")], ""),
    ("keep-alive", &[("keep-alive", "timeout=5")], ""),
    ("an upgrade", &[("upgrade", "h2c")], ""),
    ("te", &[("te", "gzip")], ""),
    ("te of trailers", &[("te", "trailers")], ""),
    ("a name in capitals", &[("X-Upper", "y")], ""),
    ("a value with a line's end", &[("x", "y\r\nContent-Length: 50")], "hello"),
    ("a value with a request", &[("x", "y\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n")], ""),
    ("a value with a line feed", &[("x", "y\nTransfer-Encoding: chunked")], "0\r\n\r\n"),
    ("a value with a carriage return", &[("x", "y\rTransfer-Encoding: chunked")], "0\r\n\r\n"),
    ("a value with a null", &[("x", "y\0z")], ""),
    ("a value with blanks around", &[("x", " y ")], ""),
    ("a name with a colon", &[("x: y\r\nz", "1")], ""),
    ("a name with a line's end", &[("x\r\ntransfer-encoding: chunked\r\nz", "1")], "0\r\n\r\n"),
    ("a name with a blank", &[("x y", "1")], ""),
    ("an empty name", &[("", "1")], ""),
    ("another host", &[("host", "evil")], ""),
    ("two other hosts", &[("host", "h"), ("host", "evil")], ""),
    ("an unknown pseudo-field", &[(":foo", "1")], ""),
    ("a protocol", &[(":protocol", "websocket")], ""),
    ("a pseudo-field behind the others", &[("x", "y"), (":path", "/hidden")], ""),
    ("a second path", &[(":path", "/hidden")], ""),
    ("a second method", &[(":method", "GET")], ""),
    ("a second authority", &[(":authority", "evil")], ""),
    ("an answer's field", &[(":status", "200")], ""),
    ("what waits for a word", &[("expect", "100-continue")], "hello"),
    ("two cookies", &[("cookie", "a=1"), ("cookie", "b=2")], ""),
    ("a protocol's settings", &[("http2-settings", "AAMAAABk")], ""),
];

/// Of the four fields of a request, one is replaced.
const PSEUDO: [(&str, &str, &str); 17] = [
    ("a path with a blank", ":path", "/pN HTTP/1.1\r\nX: y"),
    ("a path with a version", ":path", "/pN HTTP/1.1"),
    ("a path with a request", ":path", "/pN HTTP/1.1\r\nHost: h\r\n\r\nGET /hidden"),
    ("a path with a null", ":path", "/pN\0"),
    ("a path with a fragment", ":path", "/pN#/hidden"),
    ("a path with a host", ":path", "http://evil/pN"),
    ("no slash", ":path", "pN"),
    ("an empty path", ":path", ""),
    ("a star", ":path", "*"),
    ("a method with a target", ":method", "GET /hidden HTTP/1.1\r\nX:"),
    ("a method with a blank", ":method", "GET /hidden"),
    ("an empty method", ":method", ""),
    ("CONNECT with a path", ":method", "CONNECT"),
    ("an authority with a line's end", ":authority", "h\r\nContent-Length: 50"),
    ("an authority with a path", ":authority", "h/hidden"),
    ("an authority with a user", ":authority", "user@h"),
    ("a scheme with a request", ":scheme", "http://h/hidden HTTP/1.1\r\nX: "),
];

/// Trailers of HTTP/2.
const TRAILERS: [(&str, &[(&str, &str)]); 5] = [
    ("a trailer", &[("x", "y")]),
    ("a trailer of a length", &[("content-length", "50")]),
    ("a trailer of a coding", &[("transfer-encoding", "chunked")]),
    ("a trailer with a request", &[("x", "y\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n")]),
    ("a pseudo-field as a trailer", &[(":path", "/hidden")]),
];

/// All of them, each with its number in its path.
pub fn all() -> Vec<Payload> {
    let mut all = one();
    all.extend(two());
    for (number, payload) in all.iter_mut().enumerate() {
        let own = format!("p{number:03}");
        match &mut payload.sent {
            Sent::One(text) => *text = text.replace("pN", &own),
            Sent::Two(fields, ..) => {
                fields.iter_mut().for_each(|(_, value)| *value = value.replace("pN", &own));
            }
        }
    }
    all
}

fn one() -> Vec<Payload> {
    let framed = FRAMINGS.iter().map(|(name, fields, body)| {
        (*name, format!("POST /pN HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}"), 1)
    });
    let chunked = CHUNKS.iter().map(|(name, body)| {
        (*name, format!("POST /pN HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}"), 1)
    });
    let heads = HEADS.iter().map(|(name, head, requests)| (*name, (*head).to_owned(), *requests));
    let all = framed.chain(chunked).chain(heads);
    all.map(|(name, text, requests)| Payload { name, sent: Sent::One(text), requests }).collect()
}

fn two() -> Vec<Payload> {
    let request = |replaced: (&str, &str)| -> Vec<(String, String)> {
        [(":method", "POST"), (":scheme", "http"), (":authority", "h"), (":path", "/pN")]
            .map(|(name, value)| if name == replaced.0 { replaced } else { (name, value) })
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    let owned = |fields: &[(&str, &str)]| -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let fields = FIELDS.iter().map(|(name, fields, body)| {
        (*name, Sent::Two([request(("", "")), owned(fields)].concat(), body, Vec::new()))
    });
    let pseudo =
        PSEUDO.iter().map(|(name, field, value)| (*name, Sent::Two(request((field, value)), "", Vec::new())));
    let trailers =
        TRAILERS.iter().map(|(name, fields)| (*name, Sent::Two(request(("", "")), "hello", owned(fields))));
    let all = fields.chain(pseudo).chain(trailers);
    all.map(|(name, sent)| Payload { name, sent, requests: 1 }).collect()
}
