//! F42 in short: retries against endpoints that all fail must not become a storm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::kit::{Client, Origin, Proxy, ok};

#[test]
fn retries_add_no_more_than_the_budget_while_all_fail_and_nothing_is_left_of_it_after() {
    let failing = Arc::new(AtomicBool::new(true));
    let origins: Vec<_> = (0..3)
        .map(|_| {
            let failing = failing.clone();
            Origin::scripted(move |_, _| match failing.load(Ordering::SeqCst) {
                true => b"HTTP/1.1 503 Full\r\ncontent-length: 4\r\n\r\nfull".to_vec(),
                false => ok("good"),
            })
        })
        .collect();
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let pool = "retry_budget = { percent = 20, min_per_second = 2 }";
    let text = Proxy::text(&addresses, "", pool, "retry = { attempts = 3, status = [503] }");
    let proxy = Proxy::start(&format!("[metrics]\naddress = \"127.0.0.1:0\"\n{text}"));
    let address = proxy.address();
    let ask = |client: &mut Client, status| {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.receive().expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 503 {
            assert_eq!(answer.body, "full", "as it came");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                (0..250).for_each(|_| ask(&mut client, 503));
            });
        }
    });
    let heard = origins.iter().map(|origin| origin.heard().len()).sum::<usize>();
    assert!((1_100..=1_250).contains(&heard), "1000 requests came to {heard}");
    let metrics = proxy.metrics();
    let count = |series: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|rest| rest.trim().parse::<usize>().ok()).unwrap_or_default()
    };
    assert_eq!(count("headgate_pool_retries_total{pool=\"app\",reason=\"status\"}"), heard - 1_000);
    assert!(count("headgate_pool_retries_denied_total{pool=\"app\",reason=\"budget\"}") > 500, "{metrics}");
    failing.store(false, Ordering::SeqCst);
    let mut client = Client::connect(address);
    (0..20).for_each(|_| ask(&mut client, 200));
}
