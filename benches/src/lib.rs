//! How fast a broker is, beside the limit of the machine it runs on.
//!
//! * [`load`] puts one load on one broker; [`suite`] runs the table of loads on several in turn.
//! * [`floor`] is the least that any broker on one thread must do; [`bare`] the least that a
//!   persistent message costs: what they reach is the limit that a figure is worth its share of.
//! * [`wire`], [`client`] and [`socket`] are the small AMQP client below them, on purpose not the
//!   broker's own codec. [`process`], [`latency`] and [`clock`] measure.
//!
//! The README says how to run each and what its numbers mean. Linux only: epoll and `/proc`.

#![cfg(target_os = "linux")]

pub mod bare;
pub mod client;
pub mod clock;
pub mod error;
pub mod floor;
pub mod latency;
pub mod load;
pub mod process;
pub mod report;
pub mod socket;
pub mod suite;

pub mod wire;
