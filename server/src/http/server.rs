//! Listens, speaks HTTP, and leads each request to its handler.
//!
//! Everything a peer can make us hold is bounded: connections in number, heads by hyper, bodies by
//! size, and each phase (waiting for a head, for a body, for the peer to take our bytes) by time.

use super::ask::QueueNames;
use super::auth::{Access, Origin, Principal};
use super::call::Call;
use super::control::ControlHandle;
use super::prometheus::Telemetries;
use super::query::{Query, segments};
use super::rates::{Family, Movement, OBJECTS_MAX, RateBook, WATCHABLE};
use super::response::{ApiError, Body, Outcome, empty, set};
use super::{
    CorsSettings, HttpSettings, channels, connections, exchanges, overview, queues, resources,
    route, vhosts,
};
use crate::broker::snapshot::Logins;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, timeout};

/// Connections of one listener at most; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 512;
/// Bytes of a request's head at most, and of what is read ahead.
const HEAD_SIZE_MAX: usize = 64 << 10;
/// How long a client may take for a request's head, and stay idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a client may take for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a client may leave what we send untaken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused a new connection (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all requests share.
pub(crate) struct Server {
    /// The road to the broker.
    pub(crate) control: ControlHandle,
    /// What the process told us about itself.
    pub(crate) settings: HttpSettings,
    /// What counters were a while ago.
    pub(crate) rates: RefCell<RateBook>,
    /// The names of all queues when somebody last asked.
    pub(super) names: RefCell<Option<Rc<QueueNames>>>,
    /// Logins counted before they were last forgotten: of AMQP and HTTP clients.
    pub(super) logins_base: RefCell<[Logins; 2]>,
    /// What scrapes took.
    pub(super) telemetries: RefCell<Telemetries>,
}

/// A listener that was opened elsewhere.
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// Accepts connections for ever.
pub(crate) async fn serve(server: Rc<Server>, listener: Listener, service: Service) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let outcome = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                // Replies are written whole; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                let origin = Origin::Tcp(peer.ip());
                spawn_local(converse(server.clone(), stream, origin, service, permit))
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let origin = Origin::ControlSocket;
                spawn_local(converse(server.clone(), stream, origin, service, permit))
            }),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot accept an HTTP connection");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// What a listener serves.
pub(crate) type Service = fn(Rc<Server>, Origin, Request<Incoming>) -> Replying;

/// A reply under way.
pub(crate) type Replying = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// Speaks with one client until it is done; holds its permit for as long.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    server: Rc<Server>,
    stream: S,
    origin: Origin,
    service: Service,
    _permit: OwnedSemaphorePermit,
) {
    let io = TokioIo::new(Hurried { stream, stalled: None });
    let handler = service_fn(move |request: Request<Incoming>| {
        let reply = service(server.clone(), origin, request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_SIZE_MAX)
        .serve_connection(io, handler);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// The management API.
pub(crate) fn management(
    server: Rc<Server>,
    origin: Origin,
    request: Request<Incoming>,
) -> Replying {
    Box::pin(async move {
        let page = request.headers().get(header::ORIGIN).cloned();
        let settings = server.clone();
        let mut response = match answer(server, origin, request).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
        add_common_headers(&mut response);
        if let Some(page) = page.as_ref().and_then(|page| page.to_str().ok()) {
            add_cors_headers(&mut response, &settings.settings.cors, page);
        }
        response
    })
}

fn add_common_headers(response: &mut Response<Body>) {
    let json =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if json {
        set(response, header::CACHE_CONTROL, "no-cache");
        set(response, header::VARY, "accept, accept-encoding, origin");
    }
    set(response, header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'");
    set(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
}

/// Lets a page of another site read the response, if the operator lets it.
fn add_cors_headers(response: &mut Response<Body>, cors: &CorsSettings, page: &str) {
    if !cors.origins.iter().any(|origin| origin == "*" || origin == page) {
        return;
    }
    set(response, header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
    set(response, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    if let Some(allow) = response.headers().get(header::ALLOW).cloned() {
        // The answer to a browser that asks before it sends.
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_METHODS, allow);
        set(response, header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, authorization, content-type");
        set(response, header::ACCESS_CONTROL_MAX_AGE, &cors.max_age_s.to_string());
    }
}

async fn answer(server: Rc<Server>, origin: Origin, request: Request<Incoming>) -> Outcome {
    let (head, body) = request.into_parts();
    let segments = segments(head.uri.path()).ok_or(ApiError::NotFound)?;
    let found = route::find(resources(), &segments).ok_or(ApiError::NotFound)?;
    if head.method == Method::OPTIONS {
        let mut response = empty(StatusCode::OK);
        set(&mut response, header::ALLOW, &found.route.allow());
        return Ok(response);
    }
    let verb = found.route.verb(&head.method)?;
    let principal = if verb.access == Access::Open {
        Principal::Anonymous
    } else {
        let principal = Principal::identify(&server.control, origin, &head.headers).await?;
        let vhost = found.parameters.iter().find(|(name, _)| *name == "vhost");
        let vhost = vhost.map(|(_, name)| name.as_str());
        server.check(&principal, verb.access, vhost).await?;
        principal
    };
    if !accepts_json(&head.headers) {
        return Err(ApiError::NotAcceptable);
    }
    let body = read_body(body, server.settings.body_size_max).await?;
    (verb.handler)(Call {
        server,
        principal,
        origin,
        parameters: found.parameters,
        query: Query::parse(head.uri.query().unwrap_or("")),
        headers: head.headers,
        body,
    })
    .await
}

/// Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).expect("the clock is not half a billion years ahead")
}

impl Server {
    /// How an object moved lately.
    pub(crate) fn movement(&self, family: Family, vhost: &str, name: &str) -> Movement {
        self.rates.borrow().movement(family, vhost, name)
    }

    /// The names of all queues; what is known already is only asked whether it still holds.
    pub(crate) async fn queue_names(&self) -> Result<Rc<QueueNames>, ApiError> {
        let known = self.names.borrow().clone();
        let changed = self.control.queue_names(known.as_ref().map(|names| names.version)).await?;
        match (changed, known) {
            (None, Some(known)) => Ok(known),
            (changed, _) => {
                let names = Rc::new(changed.unwrap_or_default());
                *self.names.borrow_mut() = Some(names.clone());
                Ok(names)
            }
        }
    }

    /// What tools take for an Erlang process: `<rabbit@host.started.number.number>`.
    fn pid(&self, number: u32, serial: u32) -> String {
        let started_s = self.settings.started_unix_ms / 1000;
        format!("<{}.{started_s}.{number}.{serial}>", self.settings.node)
    }

    /// The name of a connection's process.
    pub(crate) fn connection_pid(&self, id: u32) -> String {
        self.pid(id, 0)
    }

    /// The name of a channel's process.
    pub(crate) fn channel_pid(&self, connection: u32, number: u16) -> String {
        self.pid(connection, number.into())
    }

    /// The name of a queue's process: queues have no number of their own, their names do.
    pub(crate) fn queue_pid(&self, vhost: &str, name: &str) -> String {
        let digest = Sha256::digest(format!("{vhost}\0{name}"));
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        self.pid(number, 0)
    }

    /// Samples the counters that somebody wants rates of.
    pub(crate) async fn sample(&self) -> Result<(), ApiError> {
        let row = self.control.overview_with_messages().await?;
        let now_ms = unix_ms();
        let counters = overview::counters(&row);
        let one = [("", "", counters)].into_iter();
        self.rates.borrow_mut().sample(Family::Overview, now_ms, one);
        self.rates.borrow_mut().forget_unwatched(now_ms);
        for family in WATCHABLE {
            if self.rates.borrow().is_watched(family, now_ms) {
                self.sample_family(family, now_ms).await?;
            }
        }
        Ok(())
    }

    async fn sample_family(&self, family: Family, now_ms: u64) -> Result<(), ApiError> {
        let control = &self.control;
        match family {
            Family::Overview => {}
            Family::Queue => {
                let mut rows = Vec::new();
                let mut from = Some(0);
                while let Some(start) = from.filter(|_| rows.len() < OBJECTS_MAX) {
                    let (stretch, next) = control.queues_from(None, start).await?;
                    rows.extend(stretch);
                    from = next;
                }
                let rows = rows.iter().map(|row| (&*row.vhost, &*row.name, queues::counters(row)));
                self.rates.borrow_mut().sample(family, now_ms, rows);
            }
            Family::Exchange => {
                let rows = control.exchanges(None).await?;
                let rows =
                    rows.iter().map(|row| (&*row.vhost, &*row.name, exchanges::counters(row)));
                self.rates.borrow_mut().sample(family, now_ms, rows);
            }
            Family::Connection => {
                let rows = control.connections().await?;
                let rows = rows.iter().map(|row| ("", &*row.name, connections::counters(row)));
                self.rates.borrow_mut().sample(family, now_ms, rows);
            }
            Family::Channel => {
                let rows = control.channels().await?;
                let names: Vec<String> = rows.iter().map(channels::name_of).collect();
                let rows = names
                    .iter()
                    .zip(&rows)
                    .map(|(name, row)| ("", &**name, channels::counters(row)));
                self.rates.borrow_mut().sample(family, now_ms, rows);
            }
            Family::Vhost => {
                let rows = control.vhosts_with_messages().await?;
                let connections = control.connections().await?;
                let rows = rows.iter().map(|row| {
                    let octets = vhosts::octets(&row.name, &connections);
                    ("", &*row.name, vhosts::counters(row, octets))
                });
                self.rates.borrow_mut().sample(family, now_ms, rows);
            }
        }
        Ok(())
    }

    /// Refuses who may not. A virtual host that does not exist refuses nobody: 404 comes later.
    async fn check(
        &self,
        principal: &Principal,
        access: Access,
        vhost: Option<&str>,
    ) -> Result<(), ApiError> {
        let Err(refusal) = principal.check(access, vhost) else { return Ok(()) };
        principal.check(access, None)?;
        let rows = self.control.vhosts().await?;
        let exists = rows.iter().any(|row| Some(row.name.as_str()) == vhost);
        if exists { Err(refusal) } else { Ok(()) }
    }
}

/// Whether the client takes JSON, which it does when it does not say.
fn accepts_json(headers: &hyper::HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT) else { return true };
    let Ok(accept) = accept.to_str() else { return false };
    accept.split(',').any(|range| {
        let kind = range.split(';').next().unwrap_or("").trim();
        matches!(kind, "" | "*/*" | "application/*" | "application/json")
    })
}

/// The whole body, unless it is too large or too slow.
async fn read_body(body: Incoming, size_max: usize) -> Result<Bytes, ApiError> {
    match timeout(BODY_TIMEOUT, Limited::new(body, size_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge),
        Ok(Err(_)) | Err(_) => Err(ApiError::BodyTimeout),
    }
}

/// A stream that fails when its peer takes nothing of what we send for [`WRITE_TIMEOUT`].
struct Hurried<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Hurried<S> {
    /// Passes a finished write on, and starts or watches the clock of one that waits.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let clock = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        clock.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hurried<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hurried<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
