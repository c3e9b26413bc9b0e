//! Programs written for RabbitMQ, with their own client libraries, against this broker.

mod amqp_tools;
mod celery;
mod lapin_programs;
mod lateness;
mod management_tools;
mod node_programs;
mod patterns;
#[path = "../support/mod.rs"]
mod support;
mod tutorials;
mod users_notes;
