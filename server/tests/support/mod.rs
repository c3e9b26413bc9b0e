//! What the test programs share: brokers on free ports, clients fetched once, programs run.
#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod broker;
pub(crate) mod clients;
pub(crate) mod program;
