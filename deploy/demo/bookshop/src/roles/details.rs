//! Facts about a book.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;

use super::{Call, not_found};
use crate::server;

/// `GET /details/{id}`
pub(crate) fn answer(call: &Call) -> Response<Full<Bytes>> {
    let Some(id) = call.number_after("/details/") else { return not_found(call) };
    server::json(
        200,
        &json!({
            "id": id,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }),
    )
}
