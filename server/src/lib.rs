//! placeholder
pub mod control_socket;
pub mod node_name;
pub mod runtime_record;
