//! The life of the process: supervisors, signals, orders to stop, logs.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::peer::Peer;
use crate::support::broker::Broker;

fn hang_up(broker: &Broker) {
    let id = i32::try_from(broker.process_id()).expect("process ids are small");
    kill_process(Pid::from_raw(id).expect("it lives"), Signal::HUP).expect("it is our child");
}

/// Waits until a file holds a text.
fn await_text(path: &std::path::Path, text: &str) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let found = std::fs::read_to_string(path).unwrap_or_default();
        if found.contains(text) {
            return found;
        }
        assert!(Instant::now() < until, "no {text:?} in: {found}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Goal: systemd hears that we are ready, that we live and that we stop; the pid file is there
/// while we are.
#[test]
fn a_supervisor_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let pid_file = dir.path().join("sub/leveret.pid");
    let mut child = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .current_dir(dir.path())
        .args(["--listen", "127.0.0.1:0", "--set", "management.tcp.port=0"])
        .args(["--set", "prometheus.tcp.port=0"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env("RABBITMQ_PID_FILE", &pid_file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 200];
    let mut hear = || {
        let size = socket.recv(&mut buffer).expect("the broker tells");
        String::from_utf8_lossy(&buffer[..size]).into_owned()
    };
    assert!(hear().starts_with("READY=1"));
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), format!("{}\n", child.id()));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    while !hear().starts_with("STOPPING=1") {}
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!pid_file.exists());
}

/// Goal: SIGHUP changes what can be changed, names what cannot, and keeps everything where the file
/// is wrong.
#[test]
fn a_hangup_reads_the_configuration_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("x.conf");
    let log = dir.path().join("x.log");
    let base = format!("log.file = {}\nprometheus.tcp.port = 0\n", log.display());
    std::fs::write(&config, format!("{base}heartbeat = 7\n")).unwrap();
    let broker = Broker::start_with(&["--config", config.to_str().unwrap()]);
    assert_eq!(Peer::proposed_heartbeat(broker.amqp_address()), 7);

    std::fs::write(&config, format!("{base}heartbeat = 8\ndefault_vhost = x\n")).unwrap();
    hang_up(&broker);
    let text = await_text(&log, "configuration read again keys=\"heartbeat\"");
    assert!(text.contains("changes that wait for the next start keys=\"default_vhost\""), "{text}");
    assert_eq!(Peer::proposed_heartbeat(broker.amqp_address()), 8);

    std::fs::write(&config, format!("{base}heartbeat = soon\n")).unwrap();
    hang_up(&broker);
    await_text(&log, "nothing is changed: the configuration is refused");
    assert_eq!(Peer::proposed_heartbeat(broker.amqp_address()), 8);

    // Where the log file was moved away, a new one is begun; and levels change.
    std::fs::rename(&log, dir.path().join("old.log")).unwrap();
    std::fs::write(&config, format!("{base}log.connection.level = error\n")).unwrap();
    hang_up(&broker);
    await_text(&log, "configuration read again");
    drop(Peer::open(broker.amqp_address(), 0));
    thread::sleep(Duration::from_millis(200));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("accepting AMQP connection"), "{text}");
}

/// Goal: the log tells who came and what was changed, as fields, and no secret.
#[test]
fn events_have_fields_and_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("x.log");
    let file = format!("log.file={}", log.display());
    let broker = Broker::start_with(&["--set", &file, "--set", "log.file.formatter=json"]);
    drop(Peer::open(broker.amqp_address(), 0));
    assert!(Peer::is_refused(broker.amqp_address(), "guest", "hunter2", "/"));
    broker.http("PUT", "/api/users/ann", r#"{"password": "hunter3", "tags": "monitoring"}"#);
    broker.http(
        "PUT",
        "/api/permissions/%2f/ann",
        r#"{"configure": "^c", "write": "^w", "read": "^r"}"#,
    );
    broker.http("DELETE", "/api/users/ann", "");
    let text = await_text(&log, "user.deleted");
    assert!(!text.contains("hunter"), "{text}");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let find = |part: &str| {
        let found = events.iter().find(|event| event["msg"].as_str().unwrap().contains(part));
        found.unwrap_or_else(|| panic!("no {part:?} in: {text}"))
    };
    let login = find("granted access to vhost '/'");
    assert_eq!(login["user"], "guest");
    assert_eq!(login["vhost"], "/");
    assert_eq!(login["domain"], "rabbitmq.connection");
    assert_eq!(login["level"], "info");
    assert_eq!(find("login refused")["mechanism"], "PLAIN");
    let permission = find("permissions of user 'ann'");
    assert_eq!(
        (&permission["event"], &permission["vhost"]),
        (&"permission.set".into(), &"/".into())
    );
}
