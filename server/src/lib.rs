//! The broker: its shell, its rooms and its command line.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod broker;
pub mod config;
pub mod control_socket;
pub mod ctl;
pub mod enabled_plugins;
pub mod histogram;
pub mod http;
pub mod node_name;
pub mod runtime_record;
pub mod shell;
