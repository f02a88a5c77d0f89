//! The capabilities that need nothing but a right: the clock, randomness, and channels.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use pyisolate_abi::pickle::Value;
use pyisolate_broker::{Broker, BrokerOptions, Pace, Refusal, Session, SessionOptions};
use pyisolate_policy::{
    CellName, ClockAction, Direction, Effect, LimitChanges, Limits, Origin, Policy, Right, Rule,
};

fn policy(rights: Vec<Right>) -> Arc<Policy> {
    let rule = |right| Rule { effect: Effect::Allow, right, origin: Origin::default() };
    Arc::new(Policy {
        rules: rights.into_iter().map(rule).collect(),
        limits: LimitChanges::default(),
    })
}

fn session(broker: &Arc<Broker>, rights: Vec<Right>) -> Arc<Session> {
    let options = SessionOptions {
        cell: CellName::new("test").unwrap(),
        policy: policy(rights),
        limits: Limits::default(),
        secrets: Default::default(),
        takes_descriptors: false,
        scratch: None,
        journal: None,
    };
    Arc::new(Session::new(Arc::clone(broker), options))
}

fn broker() -> Arc<Broker> {
    Arc::new(Broker::new(BrokerOptions::default()))
}

fn payload(entries: &[(&str, Value)]) -> Value {
    let entry = |(key, value): &(&str, Value)| (Value::Text((*key).to_owned()), value.clone());
    Value::Dict(entries.iter().map(entry).collect())
}

fn ask(
    session: &Session,
    capability: &str,
    action: &str,
    entries: &[(&str, Value)],
) -> Result<Value, Refusal> {
    let ready = session.begin(capability, action, &payload(entries));
    Ok(ready.map_err(|refused| refused.refusal)?.perform(session)?.value)
}

fn is_denied(answer: Result<Value, Refusal>) -> bool {
    matches!(answer, Err(Refusal::Denied(_)))
}

fn failure(answer: Result<Value, Refusal>) -> String {
    match answer {
        Err(Refusal::Failed(failure)) => failure.kind.into_owned(),
        other => panic!("{other:?}"),
    }
}

fn int(value: Value) -> i64 {
    match value {
        Value::Int(int) => int,
        other => panic!("{other:?}"),
    }
}

fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn the_clock_tells_what_it_was_granted_to() {
    let all = [ClockAction::Time, ClockAction::Monotonic, ClockAction::Sleep];
    let session = session(&broker(), vec![Right::Clock(all.into())]);
    let now = || i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let before = now();
    let told = int(ask(&session, "clock", "time", &[]).unwrap());
    assert!((before..=now()).contains(&told));
    let monotonic = || int(ask(&session, "clock", "monotonic", &[]).unwrap());
    let first = monotonic();
    let nap = [("seconds", Value::Float(0.01))];
    assert_eq!(ask(&session, "clock", "sleep", &nap).unwrap(), Value::None);
    assert!(monotonic() >= first + 10_000_000);
    for bad in [Value::Int(-1), Value::Float(f64::NAN), Value::Int(86_401), text("1")] {
        assert_eq!(failure(ask(&session, "clock", "sleep", &[("seconds", bad)])), "ValueError");
    }
    assert_eq!(failure(ask(&session, "clock", "sleep", &[])), "ValueError");
    assert_eq!(failure(ask(&session, "clock", "time", &nap)), "ValueError");
    assert_eq!(failure(ask(&session, "clock", "set", &[])), "LookupError");

    session.set_policy(policy(vec![Right::Clock([ClockAction::Time].into())]));
    assert!(ask(&session, "clock", "time", &[]).is_ok());
    assert!(is_denied(ask(&session, "clock", "monotonic", &[])));
    assert!(is_denied(ask(&session, "clock", "sleep", &nap)));
}

#[test]
fn a_sleep_ends_with_its_cell() {
    let session = session(&broker(), vec![Right::Clock([ClockAction::Sleep].into())]);
    let sleeper = {
        let session = Arc::clone(&session);
        std::thread::spawn(move || {
            ask(&session, "clock", "sleep", &[("seconds", Value::Int(86_400))])
        })
    };
    session.end();
    assert!(matches!(sleeper.join().unwrap(), Err(Refusal::Cancelled)));
}

#[test]
fn only_what_never_waits_is_quick() {
    let all = [ClockAction::Time, ClockAction::Sleep];
    let rights = vec![Right::Clock(all.into()), Right::Random { seed: None }];
    let session = session(&broker(), rights);
    let pace = |capability, action, entries: &[_]| {
        session.begin(capability, action, &payload(entries)).unwrap().pace()
    };
    assert_eq!(pace("clock", "time", &[]), Pace::Quick);
    assert_eq!(pace("clock", "sleep", &[("seconds", Value::Int(0))]), Pace::Slow);
    assert_eq!(pace("random", "bytes", &[("length", Value::Int(16))]), Pace::Quick);
    assert_eq!(pace("random", "bytes", &[("length", Value::Int(1 << 20))]), Pace::Slow);
}

fn random(session: &Session, length: i64) -> Vec<u8> {
    bytes(ask(session, "random", "bytes", &[("length", Value::Int(length))]).unwrap())
}

#[test]
fn random_bytes_differ() {
    let broker = broker();
    let session = session(&broker, vec![Right::Random { seed: None }]);
    assert_eq!(random(&session, 0), b"");
    assert_eq!(random(&session, 1 << 20).len(), 1 << 20);
    assert_ne!(random(&session, 32), random(&session, 32));
    for bad in [Value::Int(-1), Value::Int((1 << 20) + 1), Value::Bool(true), Value::None] {
        let answer = ask(&session, "random", "bytes", &[("length", bad)]);
        assert_eq!(failure(answer), "ValueError");
    }
    session.set_policy(policy(vec![]));
    assert!(is_denied(ask(&session, "random", "bytes", &[("length", Value::Int(1))])));
}

#[test]
fn a_seed_gives_the_same_bytes_in_every_cell() {
    let seeded = |seed| session(&broker(), vec![Right::Random { seed: Some(seed) }]);
    let one = seeded(42);
    let all = [random(&one, 5), random(&one, 100)].concat();
    assert_eq!(random(&seeded(42), 105), all);
    assert_ne!(random(&seeded(43), 105), all);
    assert_ne!(random(&one, 105), all);
}

fn channel(name: &str, directions: &[Direction]) -> Right {
    Right::Ipc { channel: name.to_owned(), directions: directions.iter().copied().collect() }
}

fn send(session: &Session, message: Value, timeout: f64) -> Result<Value, Refusal> {
    let timeout = ("timeout", Value::Float(timeout));
    ask(session, "ipc", "send", &[("channel", text("jobs")), ("message", message), timeout])
}

fn receive(session: &Session, timeout: f64) -> Result<Value, Refusal> {
    let timeout = ("timeout", Value::Float(timeout));
    ask(session, "ipc", "receive", &[("channel", text("jobs")), timeout])
}

#[test]
fn a_channel_has_two_ends_and_each_is_a_right() {
    let broker = broker();
    let sender = session(&broker, vec![channel("jobs", &[Direction::Send])]);
    let receiver = session(&broker, vec![channel("jobs", &[Direction::Receive])]);
    let other = session(&broker, vec![channel("other", &[Direction::Send, Direction::Receive])]);
    let message = Value::Dict(vec![(text("n"), Value::List(vec![Value::Int(1), Value::None]))]);
    assert_eq!(send(&sender, message.clone(), 0.0).unwrap(), Value::None);
    send(&sender, Value::None, 0.0).unwrap();
    assert!(is_denied(receive(&sender, 0.0)) && is_denied(send(&receiver, Value::None, 0.0)));
    assert!(is_denied(receive(&other, 0.0)) && is_denied(send(&other, Value::None, 0.0)));
    assert_eq!(receive(&receiver, 0.0).unwrap(), message);
    assert_eq!(receive(&receiver, 0.0).unwrap(), Value::None);
    assert_eq!(failure(receive(&receiver, 0.0)), "TimeoutError");
    let nothing = ask(&sender, "ipc", "send", &[("channel", text("jobs"))]);
    assert_eq!(failure(nothing), "ValueError");
    let another = Arc::new(Broker::new(BrokerOptions::default()));
    let stranger = session(&another, vec![channel("jobs", &[Direction::Receive])]);
    send(&sender, Value::Int(1), 0.0).unwrap();
    assert_eq!(failure(receive(&stranger, 0.0)), "TimeoutError");
}

#[test]
fn what_a_cell_sent_outlives_it() {
    let broker = broker();
    let sender = session(&broker, vec![channel("jobs", &[Direction::Send])]);
    send(&sender, Value::Int(7), 0.0).unwrap();
    sender.end();
    drop(sender);
    let receiver = session(&broker, vec![channel("jobs", &[Direction::Receive])]);
    assert_eq!(receive(&receiver, 0.0).unwrap(), Value::Int(7));
}

#[test]
fn a_message_is_not_sent_under_a_policy_that_has_gone() {
    let broker = broker();
    let both = [Direction::Send, Direction::Receive];
    let one = session(&broker, vec![channel("jobs", &both)]);
    let other = session(&broker, vec![channel("jobs", &both)]);
    let message = payload(&[("channel", text("jobs")), ("message", Value::Int(1))]);
    let queued = one.begin("ipc", "send", &message).unwrap();
    one.set_policy(policy(vec![]));
    assert!(matches!(queued.perform(&one), Err(Refusal::Denied(_))));
    assert_eq!(failure(receive(&other, 0.0)), "TimeoutError");
}

#[test]
fn a_wait_ends_with_a_message_the_time_or_the_cell() {
    let broker = broker();
    let both = [Direction::Send, Direction::Receive];
    let one = session(&broker, vec![channel("jobs", &both)]);
    let other = session(&broker, vec![channel("jobs", &both)]);
    let waiting = |session: &Arc<Session>| {
        let session = Arc::clone(session);
        std::thread::spawn(move || receive(&session, 600.0))
    };
    let receiver = waiting(&one);
    send(&other, Value::Int(1), 600.0).unwrap();
    assert_eq!(receiver.join().unwrap().unwrap(), Value::Int(1));

    // Another policy holds for who waits already.
    let receiver = waiting(&one);
    one.set_policy(policy(vec![]));
    send(&other, Value::Int(5), 600.0).unwrap();
    assert!(is_denied(receiver.join().unwrap()));
    assert_eq!(receive(&other, 0.0).unwrap(), Value::Int(5));
    one.set_policy(policy(vec![channel("jobs", &both)]));

    let begin = Instant::now();
    assert_eq!(failure(receive(&one, 0.02)), "TimeoutError");
    assert!(begin.elapsed() >= Duration::from_millis(20));

    let receiver = waiting(&one);
    one.end();
    assert!(matches!(receiver.join().unwrap(), Err(Refusal::Cancelled)));
    // Nobody waits any more: what is sent now stays.
    send(&other, Value::Int(2), 0.0).unwrap();
    assert_eq!(receive(&other, 0.0).unwrap(), Value::Int(2));

    for _ in 0..1000 {
        send(&other, Value::None, 0.0).unwrap();
    }
    let full = {
        let other = Arc::clone(&other);
        std::thread::spawn(move || send(&other, Value::Int(3), 600.0))
    };
    other.end();
    assert!(matches!(full.join().unwrap(), Err(Refusal::Cancelled)));
}

#[test]
fn many_at_both_ends_lose_nothing() {
    let broker = broker();
    const EACH: i64 = 2000;
    let threads = |action: fn(&Session, i64) -> i64, direction| {
        (0..4)
            .map(|cell| {
                let session = session(&broker, vec![channel("jobs", &[direction])]);
                std::thread::spawn(move || {
                    (0..EACH).map(|n| action(&session, cell * EACH + n)).sum::<i64>()
                })
            })
            .collect::<Vec<_>>()
    };
    let put = |session: &Session, n: i64| {
        send(session, Value::Int(n), 600.0).unwrap();
        n
    };
    let take = |session: &Session, _: i64| int(receive(session, 600.0).unwrap());
    let senders = threads(put, Direction::Send);
    let receivers = threads(take, Direction::Receive);
    let sum = |threads: Vec<std::thread::JoinHandle<i64>>| {
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i64>()
    };
    assert_eq!(sum(senders), sum(receivers));
}
