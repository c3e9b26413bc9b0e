//! The one loop that everything happens in, and the only caller of the broker.
//!
//! ```text
//! sleep -> what the disk finished -> due times -> control requests -> input, round robin
//!       -> broker.end_of_read -> engine.submit -> output -> sleep
//! ```
//!
//! Readiness is edge triggered: a socket that said it is readable stays on the ready list until a
//! read comes up short, and the poll does not sleep while somebody is on it. A tick reads at most
//! [`READ_SIZE_MAX`] from each connection and [`TICK_READ_SIZE_MAX`] or [`TICK_READ_NS_MAX`] in
//! all, then goes on, so that one flood starves neither the disk nor anybody else.
//!
//! # Bounds
//! * One read buffer for all. A connection keeps only what could not be parsed: less than a frame,
//!   or at most one read where it has to wait.
//! * A connection with [`OUTBOX_READ_MAX`] waiting to be sent to it is not read.
//! * While the log has more than its share staged, connections that publish are not read.
//! * While an alarm is on, what is published is held back (`pressure.rs`).

mod accept;
mod doors;
mod input;
mod measure;
mod output;
mod pressure;
mod settings;
mod stop;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use leveret_engine::{BatchId, Engine, EngineError};
use leveret_protocol::constants::INPUT_SIZE_MAX;
use leveret_protocol::session::SessionSettings;
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::clock::Clock;
use super::connection::Connection;
use super::logging::DEFINITIONS;
use super::signals::Signals;
use super::supervisor::Supervisor;
use super::timer::{Alarm, Deadlines};
use crate::broker::change::Change;
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::effect::{Effects, OUTBOX_READ_MAX, Request};
use crate::broker::exception::Exception;
use crate::broker::ids::ConnectionId;
use crate::broker::{Broker, Context, Now};
use crate::config::SocketOptions;
use crate::http::{ControlHandle, ControlInbox, Responder};

use accept::Listener;
use doors::Door;
use measure::Measures;
use pressure::Pressure;
use stop::Stopping;

pub use settings::{LiveSettings, LoopSettings, Reload};
pub use stop::{StopReason, Stopped};

/// A connection is read so much at a time.
const READ_SIZE_MAX: usize = 256 << 10; // bytes
/// All connections together are read so much in a tick.
const TICK_READ_SIZE_MAX: usize = 1 << 20; // bytes
/// And no longer than this.
const TICK_READ_NS_MAX: u64 = 1_000_000;
/// So many more times outboxes are filled and written before the next read.
const DELIVERY_ROUNDS_MAX: usize = 4;
/// What a connection keeps unparsed, at most.
const TAIL_SIZE_MAX: usize = READ_SIZE_MAX + INPUT_SIZE_MAX; // bytes
/// A read goes behind the kept bytes.
const BUFFER_SIZE: usize = READ_SIZE_MAX + TAIL_SIZE_MAX; // bytes
const _: () = assert!(INPUT_SIZE_MAX <= TAIL_SIZE_MAX, "an incomplete frame can be kept");
const _: () = assert!(READ_SIZE_MAX <= OUTBOX_READ_MAX, "reading stops before output runs away");

/// The broker's deadlines are wall-clock times, which somebody may set forward.
const WALL_CLOCK_SLEEP_MAX_MS: u64 = 1000;

const EVENTS_MAX: usize = 1024;

const WAKER: Token = Token(0);
const ENGINE: Token = Token(1);
const ALARM: Token = Token(2);
const SIGNALS: Token = Token(3);
const FIRST_LISTENER: usize = 16;
const FIRST_CONNECTION: usize = 1024;

/// The broker and what it works with: everything but the connections.
#[derive(Debug)]
struct Core {
    broker: Broker,
    engine: Engine,
    effects: Effects,
    clock: Clock,
    now: Now,
    /// What the broker was told is durable.
    durable: BatchId,
    connections_max: Option<u64>,
    /// Connections that have a virtual host open.
    opened_count: u64,
    /// Why publishers are held back, when they are.
    blocked: Option<&'static str>,
    /// Bytes held back of all connections.
    aside_size: usize,
    /// Connections that are held back and not yet on the loop's list.
    newly_blocked: Vec<ConnectionId>,
}

impl Core {
    /// Reads the clock for all that happens until it is read again.
    fn tick(&mut self) -> u64 {
        let now_ns = self.clock.now_ns();
        self.now.ms = now_ns / 1_000_000;
        self.now.unix_ms = Clock::unix_ms();
        now_ns
    }

    /// Whether publishers must wait for the disk.
    fn log_is_behind(&self) -> bool {
        self.engine.is_behind()
    }

    /// How long the broker has nothing to do by itself. What it has can wait while the log is
    /// behind, whose completions end the sleep.
    fn broker_sleep_ms(&self) -> Option<u64> {
        let at_ms = self.broker.next_deadline().filter(|_| !self.log_is_behind())?;
        Some(at_ms.saturating_sub(Clock::unix_ms()).min(WALL_CLOCK_SLEEP_MAX_MS))
    }

    /// Whether a connection's next command must wait, for its own output or for an answer.
    fn must_wait(&self, id: ConnectionId) -> bool {
        self.effects.is_paused(id) || OUTBOX_READ_MAX <= self.effects.outbox(id).len()
    }

    /// The broker, and the context of one call to it.
    fn call(&mut self) -> (&mut Broker, Context<'_>) {
        self.now.entropy = self.clock.entropy();
        let Core { broker, engine, effects, now, .. } = self;
        (broker, Context { now: *now, engine, effects })
    }
}

/// The loop with its sockets.
#[derive(Debug)]
pub struct EventLoop {
    poll: Poll,
    core: Core,
    connections: Slab<Connection>,
    listeners: Vec<Listener>,
    session_settings: Rc<SessionSettings>,
    reload: Reload,
    supervisor: Supervisor,
    socket_options: SocketOptions,
    inbox: ControlInbox,
    signals: Signals,
    alarm: Alarm,
    deadlines: Deadlines,
    /// Connections with something to read or parse, in turn.
    ready: VecDeque<ConnectionId>,
    /// Publishers that wait for the log.
    held: Vec<ConnectionId>,
    /// Connections that an alarm holds back.
    blocked: Vec<ConnectionId>,
    pressure: Pressure,
    /// Connections whose socket may take more of what waits.
    unflushed: Vec<ConnectionId>,
    /// The thread's read buffer, taken out while it is in use.
    buffer: Vec<u8>,
    /// Memory of tails that were parsed to their end.
    spare_tails: Vec<Vec<u8>>,
    /// An outbox has room again: the broker may have more for it.
    drained: bool,
    /// Answers to other threads that wait for the log.
    held_replies: VecDeque<(BatchId, Responder, ControlReply)>,
    /// The log's event came.
    disk_finished: bool,
    /// A signal came, or an order that is like one.
    signalled: bool,
    /// The operator ordered the process to end.
    halted: bool,
    /// Where clients were let in, while they are not.
    closed_doors: Vec<Door>,
    /// The broker could not use the log.
    poisoned: Option<String>,
    /// The operator was told that transient messages stay in memory.
    spill_reported: bool,
    stopping: Option<Stopping>,
    /// What the loop measures of itself.
    measures: Measures,
    /// When to try to accept again after the process ran out of files.
    accept_again_ms: Option<u64>,
}

impl EventLoop {
    /// A loop around a broker, listening on sockets that are open. The handle is how another thread
    /// asks the broker.
    ///
    /// # Errors
    /// The system refuses an event queue, a timer or a registration.
    pub fn new(
        broker: Broker,
        engine: Engine,
        clock: Clock,
        listeners: Vec<std::net::TcpListener>,
        signals: Signals,
        settings: LoopSettings,
    ) -> io::Result<(EventLoop, ControlHandle)> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        let waker = Arc::new(Waker::new(registry, WAKER)?);
        let (handle, inbox) = crate::http::control::channel(waker);
        let alarm = Alarm::new(registry, ALARM)?;
        if let Some(event_fd) = engine.event_fd() {
            let event_fd = event_fd.as_raw_fd();
            SourceFd(&event_fd).register(registry, ENGINE, Interest::READABLE)?;
        }
        let mut signals = signals;
        signals.register(registry, SIGNALS)?;
        let listeners = Listener::register_all(listeners, registry)?;
        let LoopSettings { live, gauge, reload, supervisor } = settings;
        let core = Core {
            broker,
            engine,
            effects: Effects::new(),
            clock,
            now: Now::default(),
            durable: BatchId(0),
            connections_max: None,
            opened_count: 0,
            blocked: None,
            aside_size: 0,
            newly_blocked: Vec::new(),
        };
        let mut event_loop = EventLoop {
            poll,
            core,
            connections: Slab::new(),
            listeners,
            session_settings: Rc::new(live.session.clone()),
            socket_options: live.socket.clone(),
            reload,
            supervisor,
            inbox,
            signals,
            alarm,
            deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            held: Vec::new(),
            blocked: Vec::new(),
            pressure: Pressure::new(gauge),
            unflushed: Vec::new(),
            buffer: vec![0; BUFFER_SIZE],
            spare_tails: Vec::new(),
            drained: false,
            held_replies: VecDeque::new(),
            disk_finished: false,
            signalled: false,
            halted: false,
            closed_doors: Vec::new(),
            poisoned: None,
            spill_reported: false,
            stopping: None,
            measures: Measures::default(),
            accept_again_ms: None,
        };
        event_loop.set_live(live);
        Ok((event_loop, handle))
    }

    /// Serves until a signal asks to stop, then says goodbye to everybody and syncs the log.
    ///
    /// # Errors
    /// The log or the event queue has failed; nothing more can be promised to anybody.
    pub fn run(mut self) -> Result<Stopped, LoopError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.supervisor.ready();
        loop {
            self.sleep(&mut events)?;
            let now_ns = self.core.tick();
            self.measures.on_wake(now_ns);
            self.take_completions(now_ns)?;
            self.call_broker_timers();
            if std::mem::take(&mut self.signalled) {
                self.heed_signals()?;
            }
            self.supervisor.reassure(self.core.now.ms);
            self.look_at_gauge();
            self.answer_control();
            self.release_held();
            self.read_ready(now_ns)?;
            self.note_blocked();
            self.call_session_timers();
            self.end_read();
            self.submit()?;
            self.flush();
            self.deliver_more();
            if let Some(text) = self.poisoned.take() {
                return Err(LoopError::Poisoned(text));
            }
            if let Some(reason) = self.stopped() {
                self.core.engine.checkpoint()?;
                return Ok(Stopped { reason });
            }
        }
    }

    /// Waits until something happens, and notes it down.
    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.sleep_ms().map(Duration::from_millis);
        self.measures.on_sleep(self.core.clock.now_ns());
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &*events {
            match event.token() {
                WAKER => {}
                ENGINE => self.disk_finished = true,
                ALARM => self.alarm.went_off(),
                SIGNALS => self.signalled = true,
                Token(index) if index < FIRST_CONNECTION => {
                    self.note_pending_accept(index - FIRST_LISTENER);
                }
                Token(index) => self.note_readiness(index - FIRST_CONNECTION, event),
            }
        }
        self.accept_pending();
        Ok(())
    }

    /// How long nothing can happen by itself; `None` is forever.
    fn sleep_ms(&self) -> Option<u64> {
        let busy = !self.ready.is_empty()
            || !self.unflushed.is_empty()
            || self.drained
            || self.signalled
            || self.core.durable != self.core.engine.durable()
            || self.listeners.iter().any(Listener::is_pending);
        if busy {
            return Some(0);
        }
        let deadlines = [
            self.deadlines.next_ms(),
            self.alarm.poll_deadline_ns().map(|deadline_ns| deadline_ns.div_ceil(1_000_000)),
            self.accept_again_ms,
            Some(self.pressure.next_ms()),
            self.supervisor.next_ms(),
            self.stopping.as_ref().map(Stopping::deadline_ms),
        ];
        let next_ms = deadlines.into_iter().flatten().min();
        let sleep_ms =
            next_ms.map(|at_ms| at_ms.saturating_sub(self.core.clock.now_ns() / 1_000_000));
        sleep_ms.into_iter().chain(self.core.broker_sleep_ms()).min()
    }

    /// Has the broker do what is due by its clock.
    fn call_broker_timers(&mut self) {
        if self.core.broker_sleep_ms() == Some(0) {
            let (broker, mut ctx) = self.core.call();
            broker.on_deadline(&mut ctx);
            self.fulfil_requests();
        }
    }

    /// Tells the broker what has become durable, and what it wanted read.
    fn take_completions(&mut self, now_ns: u64) -> Result<(), EngineError> {
        if !std::mem::take(&mut self.disk_finished)
            && self.core.durable == self.core.engine.durable()
        {
            return Ok(());
        }
        let completed = self.core.engine.complete()?;
        self.core.durable = completed.durable;
        let (broker, mut ctx) = self.core.call();
        let confirmed = broker.on_durable(completed.durable, &mut ctx);
        for ticket in completed.loaded {
            broker.on_loaded(ticket, &mut ctx);
        }
        self.measures.on_durable(completed.durable, now_ns, confirmed);
        self.release_replies();
        self.fulfil_requests();
        Ok(())
    }

    /// Answers what other threads asked. What changed something in the log is answered when that is
    /// durable.
    fn answer_control(&mut self) {
        while let Some(call) = self.inbox.try_next() {
            if let ControlRequest::Serve(service) = call.request
                && let Err(error) = self.obey(service)
            {
                let refused = Exception::precondition(error.to_string());
                call.responder.send(ControlReply::Refused(refused));
                continue;
            }
            let staged_size = self.core.engine.staged_bytes();
            let (broker, mut ctx) = self.core.call();
            let mut reply = broker.control(call.request, &mut ctx);
            self.complete_reply(&mut reply);
            if staged_size < self.core.engine.staged_bytes() {
                let batch = self.core.engine.batch();
                self.held_replies.push_back((batch, call.responder, reply));
            } else {
                call.responder.send(reply);
            }
            self.fulfil_requests();
        }
    }

    /// Sends the answers whose change is durable.
    fn release_replies(&mut self) {
        while let Some((_, responder, reply)) =
            self.held_replies.pop_front_if(|(batch, ..)| *batch <= self.core.durable)
        {
            responder.send(reply);
        }
    }

    /// Lets publishers go on when the log has caught up.
    fn release_held(&mut self) {
        if !self.held.is_empty() && !self.core.log_is_behind() {
            for id in std::mem::take(&mut self.held) {
                if let Some(connection) = self.connections.get_mut(id.index()) {
                    connection.link.held = false;
                }
                self.make_ready(id);
            }
        }
    }

    /// Lets the broker deliver what was published, and to whom there is room again.
    fn end_read(&mut self) {
        self.drained = false;
        let (broker, mut ctx) = self.core.call();
        broker.end_of_read(&mut ctx);
        self.fulfil_requests();
    }

    /// Fills outboxes that have just been emptied, before anybody publishes more: a delivery is
    /// larger than its publish, and a queue that falls behind outgrows the caches.
    fn deliver_more(&mut self) {
        for _ in 0..DELIVERY_ROUNDS_MAX {
            if !self.drained {
                break;
            }
            self.end_read();
            self.flush();
        }
    }

    /// Tells the operator, once, that transient messages have no way out of memory any more.
    fn report_spill_failure(&mut self) {
        let failure = self.core.engine.spill_failure().filter(|_| !self.spill_reported);
        if let Some(failure) = failure {
            tracing::error!(
                failure,
                "transient messages beyond their share of memory can no longer be moved to disk"
            );
            self.spill_reported = true;
        }
    }

    /// Takes what the disk has finished and hands it the next batch, in the middle of a tick.
    fn keep_disk_busy(&mut self, now_ns: u64) -> Result<(), EngineError> {
        if self.core.engine.has_finished() {
            self.disk_finished = true;
            self.take_completions(now_ns)?;
        }
        let batch = self.core.engine.batch();
        if self.core.engine.submit_early(now_ns)? {
            self.measure_early(batch, now_ns);
        }
        Ok(())
    }

    /// Ends the tick for the log.
    fn submit(&mut self) -> Result<(), LoopError> {
        let now_ns = self.core.clock.now_ns();
        self.measure_filled();
        self.report_spill_failure();
        let deadline_ns = self.core.engine.submit(now_ns)?;
        self.measure_submitted(now_ns);
        if let Some(deadline_ns) = deadline_ns {
            self.alarm.arm(deadline_ns, now_ns)?;
        }
        let (broker, mut ctx) = self.core.call();
        broker.on_log_full(ctx.engine.is_full(), &mut ctx);
        self.fulfil_requests();
        Ok(())
    }

    /// Does what the broker asked for.
    fn fulfil_requests(&mut self) {
        if self.core.effects.requests.is_empty() {
            return;
        }
        for request in std::mem::take(&mut self.core.effects.requests) {
            match request {
                Request::CloseChannel(channel, exception) => {
                    self.close_channel(channel, &exception);
                }
                Request::CloseConnection(id, exception) => self.close_connection(id, &exception),
                Request::Disconnect(id) => self.begin_flushing(id),
                Request::Resume(id) => self.make_ready(id),
                Request::Alarms(reason) => self.on_alarms(reason),
                Request::Changed(change) => log_change(&change),
                Request::Warn(text) => tracing::warn!("{text}"),
                Request::Report(text) => tracing::error!("{text}"),
                Request::Poisoned(text) => self.poisoned = Some(text),
            }
        }
    }

    /// Puts a connection with input on the ready list, once.
    fn make_ready(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.index()) else { return };
        let link = &mut connection.link;
        if link.has_input() && !link.ready {
            link.ready = true;
            self.ready.push_back(id);
        }
    }
}

fn log_change(change: &Change) {
    let Change { event, user, vhost, name, text } = change;
    tracing::info!(
        target: DEFINITIONS, event, user = user.as_deref(), vhost = vhost.as_deref(),
        name = name.as_deref(), "{text}"
    );
}

/// Why a loop ended that was not asked to.
#[derive(Debug)]
pub enum LoopError {
    /// The log failed.
    Engine(EngineError),
    /// The log failed while the broker used it.
    Poisoned(String),
    /// The event queue failed.
    Poll(io::Error),
}

impl From<EngineError> for LoopError {
    fn from(error: EngineError) -> LoopError {
        LoopError::Engine(error)
    }
}

impl From<io::Error> for LoopError {
    fn from(error: io::Error) -> LoopError {
        LoopError::Poll(error)
    }
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoopError::Engine(error) => write!(f, "the log failed: {error}"),
            LoopError::Poisoned(text) => write!(f, "the log failed: {text}"),
            LoopError::Poll(error) => write!(f, "waiting for events failed: {error}"),
        }
    }
}

impl std::error::Error for LoopError {}
