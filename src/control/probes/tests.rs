use std::net::TcpListener;
use std::sync::Arc;

use super::*;
use crate::config::load::parse_text;
use crate::snapshot::Carried;

fn snapshot(carried: &Carried, pool: &str) -> Snapshot {
    let text = format!(
        "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\nroutes.r.pool = \"p\"\n[pools.p]\n{pool}\n"
    );
    let (config, _) = parse_text("t.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
    Snapshot::build(1, Arc::new(config), carried).unwrap()
}

fn on_control_thread<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, story)
}

fn states(probes: &Probes) -> Vec<Arc<EndpointState>> {
    let mut running: Vec<_> =
        probes.running.iter().map(|(key, running)| (key.1.clone(), running.state.clone())).collect();
    running.sort_by(|one, other| one.0.cmp(&other.0));
    running.into_iter().map(|(_, state)| state).collect()
}

#[test]
fn a_verdict_belongs_to_pool_address_and_question() {
    const ENDPOINTS: &str = "endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]";
    const QUESTION: &str = "health.http = { path = \"/r\" }";
    // What is put in the question's place, and whether it is the same question.
    let others = [
        (
            "health.http = { path = \"/r\", interval = \"2s\", interval_in_doubt = \"1s\", interval_down = \"3s\" }",
            true,
        ),
        ("health.http = { path = \"/r\", timeout = \"100ms\", rise = 9, fall = 9 }", true),
        ("health.http = { path = \"/r\", expect_status = [\"2xx\", \"300-399\"], method = \"GET\" }", true),
        ("balance = \"random\"\nhealth.http = { path = \"/r\" }", true),
        ("health.http = { path = \"/x\" }", false),
        ("health.http = { path = \"/r\", port = 9 }", false),
        ("health.http = { path = \"/r\", method = \"HEAD\" }", false),
        ("health.http = { path = \"/r\", host = \"a\" }", false),
        ("health.http = { path = \"/r\", headers.x-a = \"1\" }", false),
        ("health.http = { path = \"/r\", expect_status = 200 }", false),
        ("health.http = { path = \"/r\", expect_body = \"ok\" }", false),
        ("health.http = { path = \"/r\" }\ntls.verify = false", false),
        ("health.tcp = {}", false),
        ("health.tcp = { send = \"a\", expect = \"b\" }", false),
        ("health.grpc = {}", false),
        ("health.grpc = { service = \"a\" }", false),
    ];
    on_control_thread(async {
        for (other, same) in others {
            let (carried, mut probes) = (Carried::new(), Probes::default());
            probes.follow(&snapshot(&carried, &format!("{ENDPOINTS}\n{QUESTION}")));
            let before = states(&probes);
            before[0].set_verdict(Verdict::Down);
            let running = probes.running.values().map(|running| running.task.id()).collect::<Vec<_>>();
            probes.follow(&snapshot(&carried, &format!("{ENDPOINTS}\n{other}")));
            let after = states(&probes);
            assert_eq!(after.len(), 2, "{other}: one probe per endpoint");
            assert_eq!(Arc::ptr_eq(&before[0], &after[0]), same, "{other}");
            assert_eq!(after[0].verdict(), if same { Verdict::Down } else { Verdict::Unknown }, "{other}");
            let kept = probes.running.values().all(|probe| running.contains(&probe.task.id()));
            assert_eq!(kept, same, "{other}: a probe whose question is the same goes on with its streak");
            probes.follow(&snapshot(&carried, "endpoints = [\"127.0.0.1:1\"]"));
            assert!(probes.running.is_empty(), "no check, no probe");
        }
    });
}

/// Whoever holds the thread up is no fault of the endpoint.
#[test]
fn a_timer_that_fires_late_counts_for_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = format!(
        "endpoints = [\"{address}\"]\nhealth.tcp = {{ expect = \"x\", interval = \"50ms\", timeout = \"50ms\", fall = 1 }}"
    );
    on_control_thread(async {
        let snapshot = snapshot(&Carried::new(), &silent);
        let (pool, state) = (&snapshot.pools[0], snapshot.pools[0].endpoints[0].state.clone());
        let target = Target {
            pool: pool.spec.name.clone(),
            address: Address::Tcp(address),
            current: Rc::new(Current { settings: RefCell::new(Settings::of(pool).unwrap()), changed: Notify::new() }),
            state: state.clone(),
            turns: Arc::new(Semaphore::new(1)),
        };
        state.set_verdict(Verdict::Up);
        let mut judge = Judge::new(Verdict::Up);
        let free_at = clock::now() + Duration::from_millis(150);
        let hog = task::spawn_local(async move { while clock::now() < free_at {} });
        let (began, result) = (clock::now(), target.look().await);
        hog.await.unwrap();
        assert!(matches!(result, ProbeResult::OwnFault(_)), "{result:?}");
        assert!(target.take(result, began, &mut judge, false));
        assert_eq!((state.verdict(), state.evidence().len()), (Verdict::Up, 0));
        // Without a hog the same silence counts.
        let mut result = target.look().await;
        // A loaded machine may be late on its own.
        while matches!(result, ProbeResult::OwnFault(_)) {
            result = target.look().await;
        }
        assert!(!target.take(result, began, &mut judge, false));
        assert_eq!((state.verdict(), state.evidence().len()), (Verdict::Down, 1));
        assert_eq!(state.evidence()[0].detail, "no answer within 50ms");
    });
}
