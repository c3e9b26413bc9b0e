//! Everything that touches the world on behalf of the broker: sockets, clock, signals, the log.
//!
//! [`EventLoop`] runs on one thread and is the only caller of the broker. The rest serves it:
//! listeners and transports are sockets with nothing decided in them, [`Connection`] is what one
//! client has here, timers and the clock tell the time.

pub mod clock;
pub mod gauge;
pub mod listener;
pub mod logging;
pub mod signals;
pub mod supervisor;

mod aside;
mod connection;
mod event_loop;
mod timer;
mod transport;

pub use event_loop::{EventLoop, LiveSettings, LoopSettings, Reload, StopReason, Stopped};
