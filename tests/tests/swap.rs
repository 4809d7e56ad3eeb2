//! Planned changes of holder: nobody notices.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, Site, WEST},
    steady::{self, Question, Request, Steady, Transport},
    wait_until,
};
use rusqlite::{Connection, TransactionBehavior};

const CLIENTS: [&str; 2] = ["client-e", "client-w"];

/// Every way to ask for a resource: at both sites, over IPv4 and IPv6, TCP and UDP.
fn all_ways(resource: Public) -> Vec<Question> {
    SITES.into_iter().flat_map(|site| Question::all(resource, site)).collect()
}

/// Waits until there have been as many requests more of each.
fn await_more<T: Send + 'static>(all: &[Steady<T>], number: usize) -> Result<()> {
    let before: Vec<usize> = all.iter().map(Steady::sent).collect();
    wait_until(Duration::from_secs(60), &format!("{number} more requests of each"), || {
        all.iter().zip(&before).all(|(steady, before)| steady.sent() >= before + number)
    })
    .map(drop)
}

/// Those sent between two moments.
fn between(requests: &[Request], from: Instant, to: Instant) -> Vec<Request> {
    requests.iter().filter(|request| from < request.sent && request.sent < to).cloned().collect()
}

/// 200 requests a second over connections of their own, and conversations that last, while the holder changes twice.
#[test]
fn a_swap_under_load_no_request_fails_and_established_flows_finish_where_they_are() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for question in all_ways(Public::Orders) {
        lab.await_server("client-e", question, "db-east")?;
    }
    let (mut requests, mut conversations) = (Vec::new(), Vec::new());
    for (question, client) in all_ways(Public::Orders).into_iter().zip(CLIENTS.into_iter().cycle()) {
        requests.push(lab.request_steadily(client, question, 25)?);
        conversations.push(lab.converse(client, question)?);
    }
    await_more(&requests, 25)?;
    await_more(&conversations, 25)?;

    let said = lab.agent("east")?.order(&["swap", "orders", "--to", "west"])?;
    assert!(said.contains("ms") || said.contains("µs"), "it says how long each step took: {said}");
    lab.await_holder(&SITES, Public::Orders, WEST, 1)?;
    let there = Instant::now();
    await_more(&requests, 25)?;
    let back = Instant::now();
    let established = steady::finish(conversations)?;
    lab.agent("east")?.order(&["swap", "orders", "--to", "east"])?;
    lab.await_holder(&SITES, Public::Orders, EAST, 2)?;
    let again = Instant::now();
    await_more(&requests, 25)?;

    for said in established {
        assert_eq!(said.servers, BTreeSet::from(["db-east".to_owned()]), "{said:?}");
        assert_eq!(said.broken, None);
    }
    for (requests, question) in steady::finish(requests)?.iter().zip(all_ways(Public::Orders)) {
        steady::all_answered(requests, &["db-east", "db-west"]).with_context(|| question.to_string())?;
        // A datagram from a port that was used before the swap belongs to an established flow.
        let then = [(there, back, "db-west"), (again, Instant::now(), "db-east")];
        for (from, to, server) in then.into_iter().filter(|_| question.transport == Transport::Tcp) {
            steady::all_answered(&between(requests, from, to), &[server]).with_context(|| question.to_string())?;
        }
    }
    Ok(())
}

/// Both resources trade places at once, each under load.
#[test]
fn a9_two_resources_swap_in_opposite_directions_under_load() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let mut requests = Vec::new();
    for (resource, holder) in [(Public::Orders, EAST), (Public::Accounts, WEST)] {
        for question in all_ways(resource) {
            lab.await_server("client-w", question, &format!("db-{}", holder.name))?;
            requests.push(lab.request_steadily("client-w", question, 12)?);
        }
    }
    await_more(&requests, 12)?;
    let swap = |resource: Public, to: Site| lab.agent("west")?.order(&["swap", resource.name(), "--to", to.name]);
    thread::scope(|scope| {
        let orders = scope.spawn(|| swap(Public::Orders, WEST));
        swap(Public::Accounts, EAST).map(drop)?;
        orders.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
    })?;
    lab.await_holder(&SITES, Public::Orders, WEST, 1)?;
    lab.await_holder(&SITES, Public::Accounts, EAST, 1)?;
    await_more(&requests, 12)?;
    for requests in steady::finish(requests)? {
        steady::all_answered(&requests, &["db-east", "db-west"])?;
    }
    for (resource, server) in [(Public::Orders, "db-west"), (Public::Accounts, "db-east")] {
        for question in all_ways(resource) {
            assert_eq!(lab.server("client-e", question)?, server);
        }
    }
    Ok(())
}

/// When the drain time is over, the old holder serves nothing of it any more.
#[test]
fn established_flows_have_the_drain_time_and_no_longer() -> Result<()> {
    // Takes several times the drain time: at most one request in 25 ms.
    const ASKED: usize = 200;
    let lab = Lab::up(&Options::default())?;
    for site in SITES {
        let agent = lab.agent(site.name)?;
        agent.edit("takeover = \"confirmed\"", "takeover = \"confirmed\"\ndrain_time = \"1s\"")?;
        agent.order(&["reload"])?;
    }
    let mut conversations = Vec::new();
    for question in all_ways(Public::Orders) {
        lab.await_server("client-e", question, "db-east")?;
        conversations.push((question, lab.converse("client-e", question)?));
    }
    lab.agent("west")?.order(&["swap", "orders", "--to", "west"])?;
    for (question, conversation) in conversations {
        let before = conversation.sent();
        wait_until(Duration::from_secs(60), &format!("the drain time for {question} is over"), || {
            conversation.ended() || conversation.sent() >= before + ASKED
        })?;
        let said = conversation.finish()?;
        match question.transport {
            // A datagram knows nothing of the one before: the new holder answers it.
            Transport::Udp => assert!(said.servers.contains("db-west") && said.broken.is_none(), "{said:?}"),
            // A connection the new holder does not know, it resets.
            Transport::Tcp => assert!(!said.servers.contains("db-west") && said.broken.is_some(), "{said:?}"),
        }
    }
    Ok(())
}

/// A whole site is emptied and filled again.
#[test]
fn a_site_is_drained_and_undrained_under_load() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &SITES)?;
    let mut requests = Vec::new();
    for resource in [Public::Www, Public::Orders, Public::Accounts] {
        for question in all_ways(resource) {
            wait_until(Duration::from_secs(15), "every question is answered", || {
                lab.server("client-e", question).is_ok()
            })?;
            requests.push(lab.request_steadily("client-e", question, 10)?);
        }
    }
    await_more(&requests, 10)?;
    lab.agent("west")?.order(&["drain", "east"])?;
    lab.await_answers("client-w", &SITES, Public::Www, &[WEST])?;
    lab.await_answers("client-w", &SITES, Public::Orders, &[WEST])?;
    lab.await_holder(&SITES, Public::Orders, WEST, 1)?;
    let empty = Instant::now();
    await_more(&requests, 10)?;
    let full = Instant::now();
    lab.agent("west")?.order(&["undrain", "east"])?;
    lab.await_answers("client-w", &SITES, Public::Www, &SITES)?;
    await_more(&requests, 10)?;
    for requests in steady::finish(requests)? {
        steady::all_answered(&requests, &["db-east", "db-west", "east-web1", "east-web2", "west-web1", "west-web2"])?;
        steady::all_answered(&between(&requests, empty, full), &["db-west", "west-web1", "west-web2"])?;
    }
    Ok(())
}

/// What an application at one site has done with a table that only the holder's site may write.
#[derive(Debug, Default)]
struct Written {
    /// The orders that it has committed.
    acknowledged: Vec<String>,
    /// How often it was not allowed to.
    refused: usize,
    /// All orders there were, each time that it could write after it could not.
    found: Vec<BTreeSet<String>>,
}

/// Makes one order after the other, as long as it is wanted; while that is refused it tries again.
fn make_orders(lab: &Lab, site: Site, wanted: &AtomicBool, written: &Mutex<Written>) -> Result<()> {
    let mut database = lab.application(site)?;
    // It must not sleep while it could write.
    database.busy_handler(Some(|_| {
        thread::sleep(Duration::from_micros(500));
        true
    }))?;
    let mut was_refused = false;
    for number in 0.. {
        if !wanted.load(Ordering::Relaxed) {
            break;
        }
        let order = format!("{} {number}", site.name);
        let made = make_order(&mut database, &order, site, was_refused);
        was_refused = made.is_err();
        let mut written = written.lock().map_err(|_| anyhow!("the other thread panicked"))?;
        match made {
            Ok(found) => {
                written.acknowledged.push(order);
                written.found.extend(found);
            }
            Err(error) => {
                let holder = format!("siteswap: site {} holds table orders", site.peer);
                ensure!(error.to_string().contains(&holder), error);
                written.refused += 1;
            }
        }
        drop(written);
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Commits an order. If wanted, says what orders there are then.
fn make_order(database: &mut Connection, order: &str, site: Site, look: bool) -> Result<Option<BTreeSet<String>>> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("INSERT INTO orders (id, site) VALUES (?1, ?2)", [order, site.name])?;
    let found = look.then(|| orders(&transaction)).transpose()?;
    transaction.commit()?;
    Ok(found)
}

fn orders(database: &Connection) -> Result<BTreeSet<String>> {
    let mut statement = database.prepare("SELECT id FROM orders")?;
    let orders = statement.query_map([], |row| row.get(0))?;
    Ok(orders.collect::<Result<_, _>>()?)
}

/// Gives the order until it is followed; says what it prints.
fn swap_orders(lab: &Lab, old: Site, new: Site) -> Result<String> {
    let mut said = String::new();
    let swapped = wait_until(Duration::from_secs(60), &format!("orders moves to {}", new.name), || {
        let order = lab.agent(old.name).and_then(|agent| agent.order(&["swap", "orders", "--to", new.name]));
        said = order.as_ref().map_or_else(ToString::to_string, String::clone);
        order.is_ok()
    });
    swapped.with_context(|| format!("{said}\n{}", lab.backlog()))?;
    Ok(said)
}

/// Dropping it ends the applications.
struct Wanted<'a>(&'a AtomicBool);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Both sites' applications want to write all the time; the holder's may. There and back.
#[test]
fn c5_at_the_new_holders_first_write_no_write_is_missing_that_the_old_holder_had_acknowledged() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    for site in SITES {
        let agent = lab.agent(site.name)?;
        agent.edit("standby_writes = \"allow\"", "standby_writes = \"refuse\"")?;
        agent.order(&["reload"])?;
    }
    let deadline = Duration::from_secs(60);
    wait_until(deadline, "west refuses writes and names the holder", || {
        let refused = lab.tell(WEST, "change 00000000000100000000000000000000 2");
        refused.is_err_and(|error| error.to_string().contains("siteswap: site east holds table order_items"))
    })?;
    let (wanted, written) = (AtomicBool::new(true), SITES.map(|_| Mutex::new(Written::default())));
    let of = |site: Site| -> Result<MutexGuard<'_, Written>> {
        let own = &written[usize::from(site == WEST)];
        own.lock().map_err(|_| anyhow!("the other thread panicked"))
    };
    thread::scope(|scope| {
        let ending = Wanted(&wanted);
        let applications: Vec<_> = SITES
            .iter()
            .zip(&written)
            .map(|(site, written)| scope.spawn(|| make_orders(&lab, *site, &wanted, written)))
            .collect();
        for (old, new) in [(EAST, WEST), (WEST, EAST)] {
            let (made, refused) = of(old).map(|written| (written.acknowledged.len(), written.refused))?;
            let found = of(new)?.found.len();
            // What the old holder's site writes cannot be applied at the new one for a while.
            let busy = lab.application(new)?;
            busy.execute_batch("BEGIN IMMEDIATE")?;
            let what = format!("{} makes orders", old.name);
            wait_until(deadline, &what, || of(old).is_ok_and(|written| written.acknowledged.len() >= made + 50))?;
            let lab = &lab;
            let swap = scope.spawn(move || swap_orders(lab, old, new));
            let is_refused = || of(old).is_ok_and(|written| written.refused > refused);
            // Whether it does or not: in the end the new holder would give up.
            let _ = wait_until(Duration::from_secs(2), "the old holder's site makes no more", is_refused);
            busy.execute_batch("ROLLBACK")?;
            let said = swap.join().map_err(|_| anyhow!("the order panicked"))??;
            let what = format!("{} makes orders", new.name);
            wait_until(deadline, &what, || of(new).is_ok_and(|written| written.found.len() > found))?;
            let (old, new) = (of(old)?, of(new)?);
            let found = new.found.last().context("nothing was found")?;
            let missing: Vec<_> = old.acknowledged.iter().filter(|order| !found.contains(*order)).collect();
            ensure!(missing.is_empty(), "of {} orders are missing: {missing:?}; {said}", old.acknowledged.len());
        }
        drop(ending);
        let end = |application: thread::ScopedJoinHandle<'_, Result<()>>| {
            application.join().map_err(|_| anyhow!("an application panicked"))?
        };
        applications.into_iter().try_for_each(end)
    })?;
    lab.await_same_databases(deadline)?;
    let there = orders(&lab.application(EAST)?)?;
    for written in SITES.map(of) {
        ensure!(written?.acknowledged.iter().all(|order| there.contains(order)), "orders are lost");
    }
    Ok(())
}
