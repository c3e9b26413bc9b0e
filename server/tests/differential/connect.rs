//! What a `connect` step says about the handshake.

use crate::method::{Argument, Arguments};
use crate::player::scan_number;
use crate::text::{Scanner, SyntaxError};
use crate::value::{Table, Value};

/// `connect user=.. password=.. vhost=.. channel-max=.. frame-max=.. heartbeat=..
/// capabilities=none`; each may be left out.
pub(crate) struct ConnectOptions {
    user: String,
    password: String,
    vhost: String,
    channel_max: u64,
    frame_max: u64,
    heartbeat: u64,
    capabilities: bool,
}

impl ConnectOptions {
    pub(crate) fn scan(scanner: &mut Scanner) -> Result<ConnectOptions, SyntaxError> {
        let mut options = ConnectOptions {
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 0,
            capabilities: true,
        };
        while !scanner.is_at_end() {
            let name = scanner.name();
            scanner.expect(b'=')?;
            match name.as_str() {
                "user" => options.user = scan_text(scanner)?,
                "password" => options.password = scan_text(scanner)?,
                "vhost" => options.vhost = scan_text(scanner)?,
                "channel-max" => options.channel_max = scan_number(scanner)?,
                "frame-max" => options.frame_max = scan_number(scanner)?,
                "heartbeat" => options.heartbeat = scan_number(scanner)?,
                "capabilities" => options.capabilities = scan_text(scanner)? != "none",
                _ => return scanner.error("no such option"),
            }
        }
        Ok(options)
    }

    pub(crate) fn start_ok(&self) -> Arguments {
        let names = [
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "authentication_failure_close",
        ];
        let all = names.iter().map(|name| (name.as_bytes().to_vec(), Value::Bool(1))).collect();
        let capabilities = if self.capabilities { Table(all) } else { Table::default() };
        let properties = Table(vec![(b"capabilities".to_vec(), Value::Table(capabilities))]);
        let response = format!("\0{}\0{}", self.user, self.password);
        vec![
            ("client-properties".to_owned(), Argument::Table(properties)),
            ("mechanism".to_owned(), Argument::Text(b"PLAIN".to_vec())),
            ("response".to_owned(), Argument::Text(response.into_bytes())),
            ("locale".to_owned(), Argument::Text(b"en_US".to_vec())),
        ]
    }

    pub(crate) fn tune_ok(&self) -> Arguments {
        vec![
            ("channel-max".to_owned(), Argument::Number(self.channel_max)),
            ("frame-max".to_owned(), Argument::Number(self.frame_max)),
            ("heartbeat".to_owned(), Argument::Number(self.heartbeat)),
        ]
    }

    pub(crate) fn open(&self) -> Arguments {
        vec![("virtual-host".to_owned(), Argument::Text(self.vhost.clone().into_bytes()))]
    }
}

fn scan_text(scanner: &mut Scanner) -> Result<String, SyntaxError> {
    Ok(String::from_utf8_lossy(&scanner.string()?).into_owned())
}
