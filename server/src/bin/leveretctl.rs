//! The command line. Called by the name of one of RabbitMQ's tools, it is that tool.

use leveret_server::ctl::{self, Tool};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let tool = Tool::of_program(&program).unwrap_or(Tool::Leveretctl);
    ctl::main(tool, arguments.collect())
}
