//! The page that customers see.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{Call, env, not_found};
use crate::client::Service;
use crate::headers::passed_on;
use crate::server;

/// How long reviews may take, each of two times.
const PATIENCE: Duration = Duration::from_secs(3);
/// The one book of the shop.
const BOOK: u32 = 0;
const TITLE: &str = "The Comedy of Errors";

/// The service.
#[derive(Debug)]
pub(crate) struct Productpage {
    details: Service,
    reviews: Service,
    ratings: Service,
    flood: u32,
    served: AtomicU64,
}

impl Productpage {
    pub(crate) fn from_env() -> Self {
        Self {
            details: Service::from_env("details"),
            reviews: Service::from_env("reviews"),
            ratings: Service::from_env("ratings"),
            flood: env("FLOOD_FACTOR", "0").parse().unwrap_or(0),
            served: AtomicU64::new(0),
        }
    }

    pub(crate) async fn answer(&self, call: Call) -> Response<Full<Bytes>> {
        let headers = with_user(&call.headers);
        match (&call.method, call.path.as_str()) {
            (&Method::GET, "/productpage") => self.page(&headers).await,
            (&Method::POST, "/login") => sign_in(&call),
            (&Method::GET, "/logout") => redirect("session=; Max-Age=0; Path=/"),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::GET, "/api/v1/products") => server::json(200, &json!([{ "id": BOOK, "title": TITLE }])),
            (&Method::GET, "/" | "/index.html") => {
                server::html(format!("<h1>Bookshop</h1><p><a href=\"/productpage\">{TITLE}</a></p>"))
            }
            (&Method::GET, path) if path.starts_with("/api/v1/products/") => self.api(&call, &headers).await,
            _ => not_found(&call),
        }
    }

    async fn details(&self, headers: &HeaderMap) -> (u16, Value) {
        let path = format!("/details/{BOOK}");
        let unavailable = |error| {
            (
                503,
                json!({ "error": format!("Sorry, product details are currently unavailable for this book. ({error})") }),
            )
        };
        match self.details.get(&path, headers, PATIENCE).await {
            Ok((200, document)) => (200, document),
            Ok((status, _)) => unavailable(format!("status {status}")),
            Err(error) => unavailable(error),
        }
    }

    async fn reviews(&self, headers: &HeaderMap) -> (u16, Value) {
        let path = format!("/reviews/{BOOK}");
        for _ in 0..self.flood {
            // The exercise in rate limiting wants more requests than the page needs.
            let _ = self.reviews.get(&path, headers, PATIENCE).await;
        }
        let mut last = String::new();
        for _ in 0..2 {
            match self.reviews.get(&path, headers, PATIENCE).await {
                Ok((200, document)) => return (200, document),
                Ok((status, _)) => last = format!("status {status}"),
                Err(error) => last = error,
            }
        }
        (
            503,
            json!({ "error": format!("Sorry, product reviews are currently unavailable for this book. ({last})") }),
        )
    }

    async fn page(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        self.served.fetch_add(1, Ordering::Relaxed);
        let (details, reviews) = tokio::join!(self.details(headers), self.reviews(headers));
        let mut page = format!(
            "<!DOCTYPE html><html><head><title>Simple Bookstore App</title></head><body><h1>{TITLE}</h1>"
        );
        if let Some(user) = headers.get("end-user").and_then(|user| user.to_str().ok()) {
            let _ = write!(page, "<p>signed in as {} (<a href=\"/logout\">sign out</a>)</p>", escaped(user));
        }
        page.push_str("<h2>Book Details</h2>");
        section(&mut page, &details.1);
        page.push_str("<h2>Book Reviews</h2>");
        match reviews.1["reviews"].as_array() {
            Some(all) => {
                let served_by =
                    [&reviews.1["podname"], &reviews.1["version"]].map(|part| part.as_str().unwrap_or(""));
                all.iter().for_each(|review| one_review(&mut page, review));
                let _ = write!(
                    page,
                    "<p>Reviews served by: {} {}</p>",
                    escaped(served_by[0]),
                    escaped(served_by[1])
                );
            }
            None => section(&mut page, &reviews.1),
        }
        page.push_str("</body></html>\n");
        server::html(page)
    }

    async fn api(&self, call: &Call, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let rest = call.path.trim_start_matches("/api/v1/products/");
        let (status, document) = match rest.split_once('/') {
            None => self.details(headers).await,
            Some((_, "reviews")) => self.reviews(headers).await,
            Some((_, "ratings")) => {
                match self.ratings.get(&format!("/ratings/{BOOK}"), headers, PATIENCE).await {
                    Ok(answer) => answer,
                    Err(error) => (503, json!({ "error": error })),
                }
            }
            Some(_) => return not_found(call),
        };
        server::json(status, &document)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let served = self.served.load(Ordering::Relaxed);
        let text = format!(
            "# TYPE request_result_total counter\nrequest_result_total{{destination_app=\"productpage\"}} {served}\n"
        );
        server::text(200, &text)
    }
}

/// The customer's name travels as a header from here on.
fn with_user(headers: &HeaderMap) -> HeaderMap {
    let mut kept = passed_on(headers);
    let cookies = headers.get_all(COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let user =
        cookies.flat_map(|cookie| cookie.split(';')).find_map(|part| part.trim().strip_prefix("session="));
    if let Some(value) =
        user.filter(|user| !user.is_empty()).and_then(|user| HeaderValue::from_str(user).ok())
    {
        kept.insert("end-user", value);
    }
    kept
}

fn sign_in(call: &Call) -> Response<Full<Bytes>> {
    let form = String::from_utf8_lossy(&call.body);
    let user = form.split('&').find_map(|pair| pair.strip_prefix("username=")).unwrap_or("");
    let user: String = user.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    redirect(&format!("session={user}; Path=/"))
}

fn redirect(cookie: &str) -> Response<Full<Bytes>> {
    let mut response = server::text(302, "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn section(page: &mut String, document: &Value) {
    if let Some(error) = document["error"].as_str() {
        let _ = write!(page, "<p class=\"error\">{}</p>", escaped(error));
        return;
    }
    page.push_str("<ul>");
    for (key, value) in document.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(page, "<li>{}: {}</li>", escaped(key), escaped(&value));
    }
    page.push_str("</ul>");
}

fn one_review(page: &mut String, review: &Value) {
    let text = |key: &str| escaped(review[key].as_str().unwrap_or(""));
    let _ = write!(page, "<blockquote><p>{}</p><small>{}</small>", text("text"), text("reviewer"));
    let rating = &review["rating"];
    if let Some(stars) = rating["stars"].as_u64() {
        let color = escaped(rating["color"].as_str().unwrap_or("black"));
        let shown: String = (0..5).map(|star| if star < stars { '★' } else { '☆' }).collect();
        let _ = write!(page, "<p style=\"color:{color}\">{shown}</p>");
    } else if let Some(error) = rating["error"].as_str() {
        let _ = write!(page, "<p class=\"error\">{}</p>", escaped(error));
    }
    page.push_str("</blockquote>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_becomes_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("a=b; session=jason"));
        assert_eq!(with_user(&headers).get("end-user").unwrap(), "jason");
    }

    #[test]
    fn pages_escape_what_they_show() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
