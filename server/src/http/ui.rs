//! The pages outside of the API: a word to whoever looks in with a browser.

use super::auth::Access;
use super::response::{Body, empty, json_bytes, set, with_status};
use super::route::{Route, done, get};
use hyper::{Response, StatusCode, header};

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/",
        verbs: &[get(Access::Open, "A page that names the API", |_| done(Ok(html(INDEX))))],
    },
    Route {
        path: "/api",
        verbs: &[get(Access::Open, "Leads to the index", |_| done(Ok(moved("/api/index.html"))))],
    },
    Route {
        path: "/api/index.html",
        verbs: &[get(Access::Open, "A page that names the API", |_| done(Ok(html(INDEX))))],
    },
    Route {
        path: "/mgmt",
        verbs: &[get(Access::Open, "Leads to the front page", |_| done(Ok(moved("/"))))],
    },
    Route {
        path: "/favicon.ico",
        verbs: &[get(Access::Open, "No icon", |_| done(Ok(empty(StatusCode::NO_CONTENT))))],
    },
];

const INDEX: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>Leveret</title></head><body><h1>Leveret</h1>\
<p>A message broker that speaks RabbitMQ's protocols.</p>\
<p>The management API is under <code>/api</code>; try <a href=\"/api/overview\">/api/overview</a>. \
Its description is <a href=\"/api/openapi.json\">/api/openapi.json</a>.</p>\
</body></html>\n";

fn html(text: &str) -> Response<Body> {
    let mut response = json_bytes(text.as_bytes().to_vec());
    set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    response
}

fn moved(location: &str) -> Response<Body> {
    let mut response = with_status(empty(StatusCode::OK), StatusCode::MOVED_PERMANENTLY);
    set(&mut response, header::LOCATION, location);
    response
}
