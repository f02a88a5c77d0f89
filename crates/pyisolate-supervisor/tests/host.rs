//! A Rust host without CPython: what `examples/host.rs` shows, and what goes wrong, checked.
//!
//! Skipped by name where there is no interpreter with pyisolate in it, unless `PYISOLATE_REQUIRE`
//! lists `python`.

#![expect(clippy::print_stdout, reason = "says what it skips")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pyisolate_supervisor::abi::pickle::Caps;
use pyisolate_supervisor::broker::Failure;
use pyisolate_supervisor::policy::{Document, Format, Policy};
use pyisolate_supervisor::{
    Cell, CellError, CellName, CellOptions, Death, Delivery, Environment, Event, Handler,
    HandlerCall, HostCapability, Imports, LimitName, Limits, Outbound, Parcel, Patience,
    SpawnError, Status, Supervisor, SupervisorOptions, Value,
};

/// How long a test waits for what must come: a guard against hanging, no promise.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

/// The environment that all tests use: the checkout's own, or what a host would find.
fn environment() -> Option<&'static Environment> {
    static FOUND: OnceLock<Option<Environment>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv");
            let found = Environment::of_venv(&venv, None).or_else(|_| Environment::discover());
            let required = std::env::var("PYISOLATE_REQUIRE").unwrap_or_default();
            match found {
                Ok(environment) => Some(environment),
                Err(error) if required.split(',').any(|name| name.trim() == "python") => {
                    panic!("PYISOLATE_REQUIRE lists python: {error}")
                }
                Err(error) => {
                    println!("skipped: no python: {error}");
                    None
                }
            }
        })
        .as_ref()
}

/// Runs a test with a supervisor of its own, and shows afterwards that it still makes cells.
fn with_supervisor(test: impl FnOnce(&Supervisor)) {
    let Some(environment) = environment() else { return };
    let options = SupervisorOptions::new(environment.clone());
    let supervisor = Supervisor::new(options).expect("a supervisor starts");
    test(&supervisor);
    let cell = spawn(&supervisor, "after", &["math"], Limits::default());
    let answer = cell.call_values("math.gcd", vec![Value::Int(12), Value::Int(18)], PATIENCE);
    assert_eq!(plain(&answer.expect("the supervisor still serves")), Value::Int(6));
}

fn spawn(supervisor: &Supervisor, name: &str, imports: &[&str], limits: Limits) -> Cell {
    let name = CellName::new(name).expect("a good name");
    let imports = Imports::new(imports.iter().copied()).expect("good names");
    supervisor
        .spawn(CellOptions { imports, limits, ..CellOptions::new(name) }, None)
        .expect("a cell is made")
}

fn plain(delivery: &Delivery) -> Value {
    delivery.message.to_value(&Caps::default()).expect("plain data")
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn post(cell: &Cell, value: &Value) -> Result<(), CellError> {
    cell.post(Outbound { pickle: &value.to_pickle(), buffers: &[] }, &Patience::default())
}

/// Adds up what a guest sends; a text is more than it can take.
#[derive(Debug)]
struct Sum;

impl Handler for Sum {
    fn handle(&self, call: HandlerCall<'_>) -> Result<Parcel, Failure> {
        let Ok(Value::List(numbers)) = call.payload.message.to_value(&Caps::default()) else {
            return Err(Failure::new("TypeError", "sum takes a list"));
        };
        let sum = numbers.iter().try_fold(0_i64, |sum, number| match number {
            Value::Int(number) => sum.checked_add(*number),
            _ => None,
        });
        let sum = sum.ok_or_else(|| Failure::new("ValueError", "sum takes small ints"))?;
        Ok(Parcel { pickle: Value::Int(sum).to_pickle(), buffers: Vec::new() })
    }
}

#[test]
fn a_policy_and_a_capability_of_the_hosts_own() {
    with_supervisor(|supervisor| {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let (granted, beside) = (folder.path().join("granted"), folder.path().join("beside"));
        std::fs::write(&granted, "for guests").expect("a file");
        std::fs::write(&beside, "for nobody").expect("a file");
        let policy = format!("version: 1\nfs: {{read: [{}]}}\n", granted.display());
        let document = Document::parse(&policy, "host.yml", Format::Yaml).expect("it parses");
        let sum = HostCapability {
            handler: Arc::new(Sum),
            actions: Some(BTreeSet::from(["up".to_owned()])),
            timeout: HostCapability::TIMEOUT,
        };
        let options = CellOptions {
            policy: Some(document.policy(None).expect("a policy")),
            capabilities: BTreeMap::from([("sum".to_owned(), sum)]),
            ..CellOptions::new(CellName::new("granted").expect("a good name"))
        };
        let cell = supervisor.spawn(options, None).expect("a cell is made");
        let source = format!(
            "post(open({granted:?}).read())\npost(request('sum', 'up', [1, 2, 39]))\n\
             for bad in (['x'], 'x'):\n    try: request('sum', 'up', bad)\n    \
             except (ValueError, TypeError) as error: post(str(error))\n\
             try: open({beside:?})\nexcept PermissionError: post('denied')\n"
        );
        cell.exec(&source).and_then(|handle| handle.wait(PATIENCE)).expect("it runs");
        let mut got = Vec::new();
        while let Some(Ok(Event::Message(message))) = cell.try_recv() {
            got.push(plain(&message));
        }
        let complaints = ["sum takes small ints", "sum takes a list", "denied"].map(text);
        assert_eq!(got[..2], [text("for guests"), Value::Int(42)]);
        assert_eq!(got[2..], complaints);
        let denials = cell.denials();
        let denial = denials.first().expect("it was recorded");
        assert_eq!(denial.target, format!("read {}", beside.display()));
        assert_eq!(denial.grant, Some(format!("fs: {{read: [{}]}}", beside.display())));

        cell.set_policy(&Policy::default());
        let source = format!("open({granted:?})");
        let refused = cell.exec(&source).and_then(|handle| handle.wait(PATIENCE));
        assert!(
            matches!(refused, Err(CellError::Guest(failure)) if failure.kind.contains("Denied"))
        );
        let sum = cell.exec("request('sum', 'up', [1])").and_then(|it| it.wait(PATIENCE));
        sum.expect("what stands beside the policy stays");
    });
}

#[test]
fn values_cross_both_ways() {
    with_supervisor(|supervisor| {
        let cell = spawn(supervisor, "values", &[], Limits::default());
        let layers = cell.confinement().report.layers;
        assert!(!layers.is_empty());
        let missing = layers.iter().filter(|layer| layer.status == Status::Missing);
        let missing: Vec<&str> = missing.map(|layer| layer.name.as_str()).collect();
        assert_eq!(missing, ["clock"], "no kernel walls that off: {layers:?}");
        let sent = Value::Dict(vec![
            (text("none"), Value::None),
            (text("numbers"), Value::List(vec![Value::Int(-7), Value::Float(0.5)])),
            (Value::Int(1), Value::Tuple(vec![Value::Bool(true), text("grüße 🐍")])),
            (text("large"), Value::Bytes(vec![0xa5; 300_000])),
        ]);
        post(&cell, &sent).expect("it is taken");
        let source = "got = recv()\nprint('got', len(got))\nmetric('n', 4)\npost(got)\n\
                      def echo(*args): return args";
        cell.exec(source).and_then(|exec| exec.wait(PATIENCE)).expect("it runs");
        assert!(matches!(
            cell.recv(PATIENCE).expect("what it printed"),
            Event::Log { level, message, .. } if level == "info" && message == "got 4"
        ));
        assert!(matches!(
            cell.recv(PATIENCE).expect("its metric"),
            Event::Metric { name, sample }
                if name == "n" && plain(&sample) == Value::Tuple(vec![Value::Int(4), Value::None])
        ));
        let Ok(Event::Message(back)) = cell.recv(PATIENCE) else { panic!("no message") };
        assert_eq!(plain(&back), sent);
        let answer = cell.call_values("__main__.echo", vec![sent.clone()], PATIENCE);
        assert_eq!(plain(&answer.expect("it answers")), Value::Tuple(vec![sent]));
    });
}

#[test]
fn a_guest_error_is_told_once_and_the_cell_goes_on() {
    with_supervisor(|supervisor| {
        let cell = spawn(supervisor, "error", &[], Limits::default());
        let exec = cell.exec("def f(x):\n    return 1 / x\nf(0)").expect("it is taken");
        let Err(CellError::Guest(failure)) = exec.wait(PATIENCE) else { panic!("no failure") };
        assert_eq!(failure.kind, "ZeroDivisionError");
        assert!(failure.traceback.contains("in f\n    return 1 / x"), "{}", failure.traceback);
        assert!(exec.wait(PATIENCE).is_ok(), "told twice");
        let none = cell.recv(Some(Duration::from_millis(20)));
        assert!(matches!(none, Err(CellError::TimedOut { .. })), "{none:?}");
        let Err(CellError::Guest(failure)) = cell.call_values("os.getpid", vec![], PATIENCE) else {
            panic!("no failure")
        };
        assert_eq!(failure.kind, "pyisolate.ImportDenied");
        let target = cell.call_values("echo", vec![], PATIENCE);
        assert!(matches!(target, Err(CellError::Target(_))), "{target:?}");
    });
}

#[test]
fn a_limit_ends_the_cell_and_what_it_sent_before_arrives() {
    with_supervisor(|supervisor| {
        let limits = Limits { wall_time_ms: 300, ..Limits::default() };
        let cell = spawn(supervisor, "limit", &[], limits);
        let exec = cell.exec("post('before')\nwhile True: pass").expect("it is taken");
        let Err(CellError::Dead(Death::Limit { limit, .. })) = exec.wait(PATIENCE) else {
            panic!("no limit")
        };
        assert_eq!(limit, LimitName::WallTime);
        let Ok(Event::Message(before)) = cell.recv(PATIENCE) else { panic!("no message") };
        assert_eq!(plain(&before), text("before"));
        assert!(matches!(cell.recv(PATIENCE), Err(CellError::Dead(Death::Limit { .. }))));
        assert!(cell.exec("pass").is_err());
    });
}

#[test]
fn a_thread_that_waits_is_woken_by_the_end() {
    with_supervisor(|supervisor| {
        let cell = spawn(supervisor, "killed", &[], Limits::default());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cell.recv(None));
            std::thread::sleep(Duration::from_millis(50));
            let killed = Instant::now();
            cell.kill();
            let woken = waiting.join().expect("no panic");
            assert!(matches!(woken, Err(CellError::Dead(Death::Killed))), "{woken:?}");
            assert!(killed.elapsed() < Duration::from_secs(5));
        });
        assert_eq!(cell.pid(), None);
        assert!(supervisor.list_active().is_empty());
    });
}

#[test]
fn a_name_is_one_live_cell() {
    with_supervisor(|supervisor| {
        let cell = spawn(supervisor, "one", &[], Limits::default());
        let options = || CellOptions::new(CellName::new("one").expect("a good name"));
        let second = supervisor.spawn(options(), None);
        assert!(matches!(second, Err(SpawnError::Duplicate(_))), "{second:?}");
        cell.close(Duration::from_secs(5));
        assert_eq!(cell.death(), Some(Death::Closed));
        supervisor.spawn(options(), None).expect("the name is free again");
    });
}

#[test]
fn after_shutdown_there_are_no_more_cells() {
    let Some(environment) = environment() else { return };
    let options = SupervisorOptions { warm_pool: 2, ..SupervisorOptions::new(environment.clone()) };
    let supervisor = Supervisor::new(options).expect("a supervisor starts");
    let cell = spawn(&supervisor, "last", &[], Limits::default());
    supervisor.shutdown();
    assert_eq!(cell.death(), Some(Death::Closed));
    let name = CellName::new("late").expect("a good name");
    let late = supervisor.spawn(CellOptions::new(name), None);
    assert!(matches!(late, Err(SpawnError::ShutDown)), "{late:?}");
}

#[test]
fn a_missing_environment_is_explained() {
    let error = Environment::of_venv(Path::new("/nonexistent"), None).expect_err("no such folder");
    assert!(error.to_string().contains("/nonexistent is no virtual environment"), "{error}");
    let error = Environment::of_interpreter(Path::new("/nonexistent/python"), None)
        .expect_err("no such interpreter");
    assert!(error.to_string().contains("CPython 3.13 or newer"), "{error}");
}
