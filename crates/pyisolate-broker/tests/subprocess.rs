//! What the broker asks of whoever starts programs, and what a guest hears of how it went. That
//! programs really run, and in which jail, is tested where they are started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_broker::{
    Broker, BrokerOptions, Cancel, Command, EndedBy, Finished, Pace, Refusal, Run, RunError,
    Session, SessionOptions,
};
use pyisolate_policy::{
    CellName, CleanPath, Effect, Limits, Origin, Policy, Right, Rule, RunRight,
};

/// Keeps what it was asked, and answers as it was told.
#[derive(Debug)]
struct Recorder {
    asked: Mutex<Vec<Command>>,
    answer: fn() -> Result<Finished, RunError>,
}

impl Run for Recorder {
    fn run(&self, command: &Command, _: &Cancel) -> Result<Finished, RunError> {
        self.asked.lock().expect("nobody panicked").push(command.clone());
        (self.answer)()
    }
}

fn well() -> Result<Finished, RunError> {
    Ok(Finished { returncode: 3, stdout: b"out".to_vec(), stderr: b"err".to_vec(), ended: None })
}

fn right(program: &str) -> RunRight {
    RunRight {
        program: program.to_owned(),
        args: vec!["**".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        read: vec![CleanPath::new("/srv/data").expect("a clean path")],
        wall_time_ms: 10_000,
        output_bytes: 1000,
        mem_bytes: 2000,
    }
}

fn session(rights: Vec<RunRight>, runner: Option<Arc<dyn Run>>) -> Session {
    let rule =
        |right| Rule { effect: Effect::Allow, right: Right::Run(right), origin: Origin::default() };
    let policy = Policy { rules: rights.into_iter().map(rule).collect(), ..Policy::default() };
    let broker = Broker::new(BrokerOptions { runner, ..BrokerOptions::default() });
    let options = SessionOptions {
        cell: CellName::new("test").expect("a good name"),
        policy: Arc::new(policy),
        limits: Limits::default(),
        secrets: BTreeMap::new(),
        takes_descriptors: true,
        scratch: None,
        journal: None,
    };
    Session::new(Arc::new(broker), options)
}

fn payload(entries: &[(&str, Value)]) -> Value {
    let entry = |(key, value): &(&str, Value)| (text(key), value.clone());
    Value::Dict(entries.iter().map(entry).collect())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn run(session: &Session, entries: &[(&str, Value)]) -> Result<Value, Refusal> {
    let ready = session.begin("subprocess", "run", &payload(entries)).map_err(|it| it.refusal)?;
    assert_eq!(ready.pace(), Pace::Slow);
    ready.perform(session).map(|granted| granted.value)
}

/// What a run of `sh` comes to with this answer: kind and message.
fn failure(answer: fn() -> Result<Finished, RunError>) -> (String, String) {
    let recorder = Arc::new(Recorder { asked: Mutex::default(), answer });
    let session = session(vec![right("sh")], Some(recorder));
    match run(&session, &[("program", text("sh"))]) {
        Err(Refusal::Failed(failure)) => (failure.kind.into_owned(), failure.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_rule_says_what_the_program_may_use() {
    let recorder = Arc::new(Recorder { asked: Mutex::default(), answer: well });
    let tool = "/opt/tool/bin/tool";
    let session = session(vec![right("sh"), right(tool)], Some(Arc::clone(&recorder) as _));
    let answer = run(
        &session,
        &[
            ("program", text("sh")),
            ("args", Value::List(vec![text("-c"), text("x y")])),
            ("stdin", Value::Bytes(b"in".to_vec())),
            ("timeout", Value::Float(0.5)),
        ],
    );
    let expected = Value::Dict(vec![
        (text("returncode"), Value::Int(3)),
        (text("stdout"), Value::Bytes(b"out".to_vec())),
        (text("stderr"), Value::Bytes(b"err".to_vec())),
    ]);
    assert_eq!(answer.unwrap(), expected);
    run(&session, &[("program", text(tool)), ("timeout", Value::Int(60))]).unwrap();
    let asked = recorder.asked.lock().unwrap();
    let [shell, other] = &asked[..] else { panic!("{asked:?}") };
    assert!(shell.program.is_absolute() && shell.program.ends_with("sh"), "{shell:?}");
    assert_eq!(
        (shell.cell.as_str(), &*shell.args),
        ("test", &["-c".to_owned(), "x y".to_owned()][..])
    );
    assert_eq!((&*shell.stdin, shell.wall_time), (&b"in"[..], Duration::from_millis(500)));
    assert_eq!(shell.env, right("sh").env);
    assert_eq!(shell.read, [Path::new("/srv/data")]);
    assert_eq!((shell.output_bytes, shell.mem_bytes), (1000, 2000));
    // A program that lies elsewhere is shown to itself; no timeout is longer than the rule's.
    assert_eq!(other.program, Path::new(tool));
    assert_eq!(other.read, [PathBuf::from("/srv/data"), PathBuf::from(tool)]);
    assert_eq!(other.wall_time, Duration::from_secs(10));
}

#[test]
fn only_what_is_granted_is_run() {
    let recorder = Arc::new(Recorder { asked: Mutex::default(), answer: well });
    let git = RunRight { args: vec!["status".to_owned()], ..right("git") };
    let session = session(vec![git], Some(Arc::clone(&recorder) as _));
    for (program, args) in
        [("sh", vec![]), ("/usr/bin/git", vec!["status"]), ("git", vec!["push"]), ("git", vec![])]
    {
        let args = Value::List(args.into_iter().map(text).collect());
        let refused = run(&session, &[("program", text(program)), ("args", args)]);
        assert!(matches!(refused, Err(Refusal::Denied(_))), "{program}: {refused:?}");
    }
    // A policy that changes while the request waits holds for it, too.
    let status = [("program", text("git")), ("args", Value::List(vec![text("status")]))];
    let ready = session.begin("subprocess", "run", &payload(&status)).unwrap();
    session.set_policy(Arc::default());
    assert!(matches!(ready.perform(&session), Err(Refusal::Denied(_))));
    assert!(recorder.asked.lock().unwrap().is_empty());
}

#[test]
fn failures_say_what_to_do() {
    fn ended(by: EndedBy) -> Result<Finished, RunError> {
        Ok(Finished { returncode: -9, stdout: vec![], stderr: vec![], ended: Some(by) })
    }
    let as_failure = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
    assert_eq!(
        failure(|| ended(EndedBy::WallTime)),
        as_failure("TimeoutError", "subprocess.run: sh took longer than 10 s")
    );
    let (kind, message) = failure(|| ended(EndedBy::Output));
    assert_eq!(kind, "OSError");
    assert!(message.starts_with("[Errno 27] "), "{message}");
    assert!(message.contains("1000 bytes") && message.contains("output_bytes"), "{message}");
    let (kind, message) = failure(|| ended(EndedBy::Memory));
    assert!(kind == "MemoryError" && message.contains("2000 bytes"), "{message}");
    assert_eq!(
        failure(|| Err(RunError::Exec(std::io::Error::from_raw_os_error(13)))),
        as_failure("OSError", "[Errno 13] Permission denied")
    );
    // What these say is about the host, and for its log alone.
    for answer in [
        || Err(RunError::Launcher("/secret/place".to_owned())),
        || Err(RunError::Jail("/secret/place".to_owned())),
    ] {
        let (kind, message) = failure(answer);
        assert!(kind == "RuntimeError" && !message.contains("secret"), "{message}");
    }
    let recorder =
        Arc::new(Recorder { asked: Mutex::default(), answer: || ended(EndedBy::Cancelled) });
    let cancelled = session(vec![right("sh")], Some(recorder));
    assert!(matches!(run(&cancelled, &[("program", text("sh"))]), Err(Refusal::Cancelled)));
}

#[test]
fn programs_that_cannot_be_run_are_told_apart() {
    let nobody = session(vec![right("sh")], None);
    match run(&nobody, &[("program", text("sh"))]) {
        Err(Refusal::Failed(failure)) => assert!(failure.message.contains("starts no programs")),
        other => panic!("{other:?}"),
    }
    let recorder = Arc::new(Recorder { asked: Mutex::default(), answer: well });
    let missing = session(vec![right("there-is-no-such-program")], Some(recorder));
    match run(&missing, &[("program", text("there-is-no-such-program"))]) {
        Err(Refusal::Failed(failure)) => {
            assert_eq!(failure.message, "[Errno 2] No such file or directory");
        }
        other => panic!("{other:?}"),
    }
}
