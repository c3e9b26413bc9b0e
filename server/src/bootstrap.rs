//! From arguments to a running broker and back: what is started in which order, and ended.
//!
//! ```text
//! configuration -> log of events -> file limit -> addresses bound -> data directory locked and
//! recovered -> broker -> definitions, or first user and virtual host -> control socket -> listening -> HTTP
//! -> run-time record -> "Server startup complete"
//! ```
//!
//! Addresses are bound before recovery, so that a taken port is told at once, and listened on after
//! it, so that nobody waits on a broker that is not there yet. The end is the loop's (everybody is
//! told, the log synced), then HTTP, then the record.

mod definitions;
mod links;
mod live;
mod store_tools;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use leveret_engine::{Engine, EngineConfig, IoChoice, Recovered};

use crate::broker::effect::Effects;
use crate::broker::{Broker, BrokerSettings, Context, Now};
use crate::config::{
    self, Arguments, Command, Config, ConfigCommand, EngineIo, ListenAddress, Loaded, Persona,
    SocketOptions,
};
use crate::control_socket;
use crate::ctl::{self, Tool};
use crate::http::{
    self, CorsSettings, CredentialRules, HttpListeners, HttpSettings, ListenerInfo,
    PrometheusSettings,
};
use crate::runtime_record::{self, RuntimePlaces, RuntimeRecord};
use crate::shell::clock::Clock;
use crate::shell::gauge::Gauge;
use crate::shell::listener::{self, BoundSocket};
use crate::shell::signals::Signals;
use crate::shell::supervisor::Supervisor;
use crate::shell::{EventLoop, LoopSettings, StopReason, logging};

/// Exit code of a start that failed.
const EXIT_FAILED: u8 = 1;
/// Exit code of `rabbitmq-server` after SIGINT, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;
/// Fewer open files than this are worth a warning where connections are not limited.
const FILES_MIN: u64 = 4096;
/// Files we need besides those of clients: segments, listeners, logs.
const FILES_OF_OUR_OWN: u64 = 128;
/// What the operating system wants between accept and the application.
const HTTP_BACKLOG: u16 = 128;

/// The program: what `arguments` (the program's own name first) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let persona = arguments.first().map_or(Persona::Leveret, |name| Persona::of(name));
    if let Persona::Tool(tool) = persona {
        return ctl::main(tool, arguments.into_iter().skip(1).collect());
    }
    let arguments = match Arguments::read(arguments.into_iter()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let outcome = match &arguments.command {
        Some(Command::Ctl { arguments }) => return ctl::main(Tool::Leveretctl, arguments.clone()),
        Some(Command::Links { dir }) => links::make(dir),
        Some(Command::Inspect { dir, json }) => store_tools::inspect(dir, *json),
        Some(Command::Verify { dir }) => store_tools::verify(dir),
        Some(Command::Config { command: ConfigCommand::Check { file } }) => check_config(file),
        Some(Command::Config { command: ConfigCommand::Show }) => show_config(&arguments, &persona),
        None if arguments.detached => detach(),
        None => serve(&arguments, &persona),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("leveret: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Why the program failed, for its user.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StartError {
    /// `what` failed with `error`.
    fn new(what: impl fmt::Display, error: impl fmt::Display) -> StartError {
        StartError(format!("{what}: {error}"))
    }
}

/// Turns an error into a [`StartError`] that says what was being done.
fn failed<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> StartError {
    move |error| StartError::new(what, error)
}

fn load(arguments: &Arguments, persona: &Persona) -> Result<Loaded, StartError> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let variable = |name: &str| std::env::var(name).ok();
    config::load(arguments, persona, &variable, &host)
        .map_err(|error| StartError(format!("the configuration is refused:\n{error}")))
}

fn check_config(file: &Path) -> Result<ExitCode, StartError> {
    let variable = |name: &str| std::env::var(name).ok();
    let warnings = config::check(file, &variable)
        .map_err(|error| StartError(format!("the configuration is refused:\n{error}")))?;
    for warning in warnings {
        println!("warning: {warning}");
    }
    println!("{}: no errors", file.display());
    Ok(ExitCode::SUCCESS)
}

fn show_config(arguments: &Arguments, persona: &Persona) -> Result<ExitCode, StartError> {
    print!("{}", config::show(&load(arguments, persona)?));
    Ok(ExitCode::SUCCESS)
}

/// Starts the same program again without a terminal, and leaves it alone.
fn detach() -> Result<ExitCode, StartError> {
    use std::os::unix::process::CommandExt as _;

    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let program = std::env::current_exe().map_err(failed("cannot find this program"))?;
    let detached = |argument: &OsString| argument == "-detached" || argument == "--detached";
    process::Command::new(program)
        .arg0(name)
        .args(arguments.filter(|argument| !detached(argument)))
        .stdin(process::Stdio::null())
        .stdout(process::Stdio::null())
        .stderr(process::Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed("cannot start in the background"))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the broker until it is told to stop.
fn serve(arguments: &Arguments, persona: &Persona) -> Result<ExitCode, StartError> {
    let loaded = load(arguments, persona)?;
    let started_unix_ms = Clock::unix_ms();
    let config = &loaded.config;
    let logging = logging::start(config).map_err(failed("cannot open the log file"))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit(config);
    let supervisor = Supervisor::of_process(|name| std::env::var_os(name))
        .map_err(failed("cannot reach the supervisor that NOTIFY_SOCKET names"))?;
    let signals = Signals::new().map_err(failed("cannot receive signals"))?;
    let amqp = bind(&config.amqp_listeners(), &config.socket)?;
    let management = bind(&[ListenAddress::Address(config.management)], &SocketOptions::default())?;
    let prometheus = ListenAddress::Address(config.prometheus.address());
    let prometheus = bind(&[prometheus], &SocketOptions::default())?;

    let (broker, engine, clock) = open_broker(config)?;
    let data_dir = absolute(&config.data_dir);

    let control = control_socket::bind(&config.data_dir)
        .map_err(failed(format!("cannot open the control socket in {}", data_dir.display())))?;
    let mut infos = listener_infos("amqp", &amqp);
    infos.extend(listener_infos("http", &management));
    infos.extend(listener_infos("http/prometheus", &prometheus));
    let addresses: Vec<SocketAddr> = amqp.iter().map(|bound| bound.address).collect();
    let amqp = listen(amqp, config.socket.backlog)?;
    let listeners = HttpListeners {
        management: listen(management, HTTP_BACKLOG)?,
        control: Some(control),
        prometheus: listen(prometheus, HTTP_BACKLOG)?,
    };
    let settings = LoopSettings {
        live: live::settings(config)?,
        gauge: Gauge::new(&config.data_dir, config.pressure.memory_total),
        reload: live::reload(arguments.clone(), persona.clone(), loaded.clone(), logging),
        supervisor,
    };
    let (event_loop, handle) = EventLoop::new(broker, engine, clock, amqp, signals, settings)
        .map_err(failed("cannot watch sockets"))?;
    let http_settings = HttpSettings {
        node: config.node_name.clone(),
        data_dir: data_dir.clone(),
        config_files: loaded.files.clone(),
        environment: config::effective(&loaded),
        log_files: log_files(config),
        started_unix_ms,
        listeners: infos,
        body_size_max: config.http_body_size_max,
        credentials: credentials(config)?,
        cors: CorsSettings { origins: config.cors_origins(), max_age_s: config.cors_max_age_s },
        prometheus: prometheus_settings(config),
    };
    let http = http::start(http_settings, listeners, handle)
        .map_err(failed("cannot start the management API"))?;
    let record = RuntimeRecord { pid: process::id(), data_dir, node: config.node_name.clone() };
    let record = runtime_record::write(&RuntimePlaces::of_process(), &record);
    if let Err(error) = &record {
        tracing::warn!(%error, "tools will need --data-dir: cannot write the run-time record");
    }
    let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
    announce(&addresses);

    let stopped = event_loop.run().map_err(failed("stopped"))?;
    drop(http);
    drop(record);
    drop(pid_file);
    tracing::info!("stopped");
    let interrupted =
        stopped.reason == StopReason::Interrupted && *persona == Persona::RabbitmqServer;
    Ok(if interrupted { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Says that everybody may come now, in the lines that scripts wait for, whatever is logged.
fn announce(addresses: &[SocketAddr]) {
    let mut out = io::stdout().lock();
    for address in addresses {
        // Nobody may be there to read it.
        let _ = writeln!(out, "started TCP listener on {address}");
    }
    let _ = writeln!(out, "Server startup complete; 0 plugins started.");
    let _ = out.flush();
}

/// Files and sockets are what connections are made of: takes as many as the system allows, and says
/// so where they are few.
fn raise_file_limit(config: &Config) {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
        limit = getrlimit(Resource::Nofile);
    }
    let Some(files) = limit.current else { return };
    let wanted = config
        .connections_max
        .map_or(FILES_MIN, |connections| connections.saturating_add(FILES_OF_OUR_OWN));
    if files < wanted {
        tracing::warn!(files, wanted, "the limit of open files is low: clients may be turned away");
    } else {
        tracing::debug!(files, "open files");
    }
}

/// The file that holds our process id, for `rabbitmqctl wait`.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<PidFile, StartError> {
        let named = || failed(format!("cannot write the pid file {}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(named())?;
        }
        std::fs::write(path, format!("{}\n", process::id())).map_err(named())?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // One that stays behind names nobody who lives.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn bind(
    addresses: &[ListenAddress],
    options: &SocketOptions,
) -> Result<Vec<BoundSocket>, StartError> {
    let bound = listener::bind_all(addresses, options);
    let (bound, warnings) = bound.map_err(|error| StartError(error.to_string()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(bound)
}

fn listen(bound: Vec<BoundSocket>, backlog: u16) -> Result<Vec<TcpListener>, StartError> {
    let listen = |bound: BoundSocket| {
        let address = bound.address;
        bound.listen(backlog).map_err(failed(format!("cannot listen on {address}")))
    };
    bound.into_iter().map(listen).collect()
}

fn listener_infos(protocol: &'static str, bound: &[BoundSocket]) -> Vec<ListenerInfo> {
    let info = |bound: &BoundSocket| {
        let address = bound.address;
        ListenerInfo { protocol, ip: address.ip().to_string(), port: address.port() }
    };
    bound.iter().map(info).collect()
}

fn open_engine(config: &Config) -> Result<(Engine, Recovered), StartError> {
    let io = match config.engine_io {
        EngineIo::Auto => IoChoice::Auto,
        EngineIo::Uring => IoChoice::Uring,
        EngineIo::Thread => IoChoice::Thread,
    };
    let dir = &config.data_dir;
    let (engine, recovered) = Engine::open(dir, EngineConfig { io, ..EngineConfig::default() })
        .map_err(failed(format!("cannot use the data directory {}", dir.display())))?;
    let messages: u64 = recovered.queues.iter().map(|queue| queue.messages).sum();
    tracing::info!(
        dir = %dir.display(),
        io = engine.io_name(),
        definitions = recovered.metas.len(),
        queues = recovered.queues.len(),
        messages,
        "log recovered"
    );
    Ok((engine, recovered))
}

/// The broker as its data directory has it, with what it is to begin with.
fn open_broker(config: &Config) -> Result<(Broker, Engine, Clock), StartError> {
    let (mut engine, recovered) = open_engine(config)?;
    let (mut clock, mut broker) = make_broker(config, &recovered)?;
    broker
        .delete_orphans(&recovered, &mut engine)
        .map_err(failed("cannot delete what no definition names"))?;
    broker.configure_node(config.node.settings().map_err(StartError)?);
    definitions::prepare(config, &mut broker, &mut engine, &mut clock)?;
    Ok((broker, engine, clock))
}

fn make_broker(config: &Config, recovered: &Recovered) -> Result<(Clock, Broker), StartError> {
    let seed = getrandom::u64().map_err(failed("the system gives no random numbers"))?;
    let mut clock = Clock::new(seed);
    let settings = BrokerSettings {
        message_size_max: config.message_size_max,
        cluster_name: config.cluster_name().to_owned(),
        auth: live::auth_settings(config),
        trust_x_death: config.trust_x_death,
    };
    let entropy = clock.entropy();
    let broker = Broker::new(settings, recovered, Clock::unix_ms(), entropy)
        .map_err(failed("the data directory cannot be understood"))?;
    Ok((clock, broker))
}

/// Calls the broker before there is a loop to do it. What it asks of the shell has nobody to be done
/// for.
fn with_context<T>(
    broker: &mut Broker,
    engine: &mut Engine,
    clock: &mut Clock,
    call: impl FnOnce(&mut Broker, &mut Context<'_>) -> T,
) -> T {
    let now =
        Now { ms: clock.now_ns() / 1_000_000, unix_ms: Clock::unix_ms(), entropy: clock.entropy() };
    call(broker, &mut Context { now, engine, effects: &mut Effects::new() })
}

fn prometheus_settings(config: &Config) -> PrometheusSettings {
    let config = &config.prometheus;
    PrometheusSettings {
        path: config.path.clone(),
        per_object: config.per_object,
        authentication: config.authentication,
    }
}

fn credentials(config: &Config) -> Result<CredentialRules, StartError> {
    let node = config.node.settings().map_err(StartError)?;
    Ok(CredentialRules { validator: node.validator, algorithm: node.algorithm })
}

fn log_files(config: &Config) -> Vec<String> {
    let console = config.log.console.on.then(|| "<stdout>".to_owned());
    let file = config.log_file().map(|path| path.display().to_string());
    console.into_iter().chain(file).collect()
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
