//! The management API: HTTP on its own thread, beside the event loop and never inside of it.
//!
//! [`start`] takes listeners that are already open and one [`ControlHandle`]. A request is led to a
//! handler by the tables in [`route`](self::route), which asks the broker for rows or orders a
//! change, and renders the answer as RabbitMQ does. Nothing here sees the broker's state: only
//! requests and rows cross over.
//!
//! Two doors: TCP listeners, where every request carries a name and password that the broker
//! checks, and the control socket, where whoever could open it is the operator. A third listener
//! serves metrics.
//!
//! The runtime is single-threaded and lives and dies with this thread; no other part of the broker
//! knows that there is one.

pub mod control;

mod ask;
mod auth;
mod bindings;
mod browse;
mod call;
mod channels;
mod connections;
mod consumers;
mod definitions;
mod exchanges;
mod health;
mod json;
mod limits;
mod list;
mod messages;
mod node;
mod nodes;
mod openapi;
mod overview;
mod parameters;
mod permissions;
mod policies;
mod prometheus;
mod query;
mod queues;
mod rates;
mod response;
mod route;
mod server;
mod service;
mod stats;
mod table;
mod ui;
mod upkeep;
mod users;
mod vhosts;
mod watermarks;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;

use crate::broker::user::CredentialValidator;
use crate::broker::user::password::HashingAlgorithm;

pub use prometheus::PrometheusSettings;

pub use control::{ControlCall, ControlHandle, ControlInbox, Responder};
pub(crate) use health::normal_protocol;

use route::Route;
use server::{Listener, Server, serve};
use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// The version of RabbitMQ whose dialect we speak; tools decide by it.
pub const RABBITMQ_VERSION: &str = "4.2.0";

/// What the process tells about itself, and what it allows.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The node, e.g. `rabbit@host`.
    pub node: String,
    /// Where the data is, absolute.
    pub data_dir: PathBuf,
    /// Configuration files that were read.
    pub config_files: Vec<PathBuf>,
    /// The settings in effect, by key.
    pub environment: Vec<(String, String)>,
    /// Where the log goes; `<stdout>` for the standard output.
    pub log_files: Vec<String>,
    /// When the process started.
    pub started_unix_ms: u64,
    /// Everything that listens: protocols as RabbitMQ names them (`amqp`, `http`,
    /// `http/prometheus`).
    pub listeners: Vec<ListenerInfo>,
    /// Bytes of a request body at most.
    pub body_size_max: usize,
    /// Pages of other sites that may use the API.
    pub cors: CorsSettings,
    /// How metrics are served.
    pub prometheus: PrometheusSettings,
    /// What new passwords must be like.
    pub credentials: CredentialRules,
}

/// What new passwords must be like, and what becomes of them.
#[derive(Clone, Debug, Default)]
pub struct CredentialRules {
    /// The rule.
    pub validator: CredentialValidator,
    /// What they are hashed with.
    pub algorithm: HashingAlgorithm,
}

/// Pages of other sites that may use the API from a browser.
#[derive(Clone, Debug, Default)]
pub struct CorsSettings {
    /// Their origins, e.g. `https://example.org`; `*` is every one. None by default.
    pub origins: Vec<String>,
    /// How long browsers may remember it, in seconds.
    pub max_age_s: u64,
}

/// A listener, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// `amqp`, `amqp/ssl`, `http`, `http/prometheus`.
    pub protocol: &'static str,
    /// Address it is bound to; `::` for all.
    pub ip: String,
    /// Port.
    pub port: u16,
}

/// The sockets to serve.
#[derive(Debug, Default)]
pub struct HttpListeners {
    /// The API, with passwords.
    pub management: Vec<TcpListener>,
    /// The API, for whoever may open the socket.
    pub control: Option<UnixListener>,
    /// The metrics.
    pub prometheus: Vec<TcpListener>,
}

/// The running thread. Dropping it ends the thread and every connection.
#[derive(Debug)]
pub struct HttpThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for HttpThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was reported over there; we are on our way out.
            let _ = thread.join();
        }
    }
}

/// Starts to serve.
///
/// # Errors
/// When the system gives us no thread or no event queue, or does not take a listener.
pub fn start(
    settings: HttpSettings,
    listeners: HttpListeners,
    control: ControlHandle,
) -> io::Result<HttpThread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for listener in listeners.management.iter().chain(&listeners.prometheus) {
        listener.set_nonblocking(true)?;
    }
    if let Some(listener) = &listeners.control {
        listener.set_nonblocking(true)?;
    }
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let local = LocalSet::new();
        local.spawn_local(run(settings, listeners, control));
        // Ends when the other half is dropped.
        let _ = local.block_on(&runtime, stopped);
    })?;
    Ok(HttpThread { stop: Some(stop), thread: Some(thread) })
}

async fn run(settings: HttpSettings, listeners: HttpListeners, control: ControlHandle) {
    let server = Rc::new(Server {
        control,
        settings,
        rates: RefCell::default(),
        names: RefCell::default(),
        logins_base: RefCell::default(),
        telemetries: RefCell::default(),
    });
    for listener in listeners.management {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let listener = Listener::Tcp(listener);
                tokio::task::spawn_local(serve(server.clone(), listener, server::management));
            }
            Err(error) => tracing::error!(%error, "cannot serve the management listener"),
        }
    }
    for listener in listeners.prometheus {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let listener = Listener::Tcp(listener);
                tokio::task::spawn_local(serve(server.clone(), listener, prometheus::serve));
            }
            Err(error) => tracing::error!(%error, "cannot serve the metrics listener"),
        }
    }
    match listeners.control.map(tokio::net::UnixListener::from_std) {
        None => {}
        Some(Ok(listener)) => {
            let listener = Listener::Unix(listener);
            tokio::task::spawn_local(serve(server.clone(), listener, server::management));
        }
        Some(Err(error)) => tracing::error!(%error, "cannot serve the control socket"),
    }
    sample_for_ever(server).await;
}

/// Reads the counters that somebody wants rates of, again and again.
async fn sample_for_ever(server: Rc<Server>) {
    let mut clock = tokio::time::interval(rates::SAMPLE_INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        if server.sample().await.is_err() {
            tracing::debug!("the broker gave no rows to sample");
        }
    }
}

/// The routes of all resources, literal paths before those with parameters.
fn resources() -> impl Iterator<Item = &'static Route> {
    [
        ui::ROUTES,
        overview::ROUTES,
        nodes::ROUTES,
        health::ROUTES,
        queues::ROUTES,
        exchanges::ROUTES,
        bindings::ROUTES,
        connections::ROUTES,
        channels::ROUTES,
        consumers::ROUTES,
        vhosts::ROUTES,
        users::ROUTES,
        permissions::ROUTES,
        policies::ROUTES,
        parameters::ROUTES,
        limits::ROUTES,
        definitions::ROUTES,
        messages::ROUTES,
        browse::ROUTES,
        upkeep::ROUTES,
        openapi::ROUTES,
        service::ROUTES,
        watermarks::ROUTES,
    ]
    .into_iter()
    .flatten()
}
