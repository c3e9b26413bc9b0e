//! The broker: exchanges, queues, channels and what happens between them. A pure state machine.

pub mod control;
pub mod effect;
pub mod exception;
pub mod ids;
pub mod snapshot;
