//! B7: a peer is available if its messages arrived in each of several periods.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use hickory_proto::rr::RecordType;
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, WEST},
    wait_until,
};

#[test]
fn b7_the_link_cut_each_side_answers_with_itself_alone() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    lab.cut("link")?;
    for site in SITES {
        lab.await_answers("client-e", &[site], Public::Www, &[site])?;
        lab.await_answers("client-w", &[site], Public::Www, &[site])?;
    }
    lab.mend("link")?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}

#[test]
fn b7_one_lost_heartbeat_changes_nothing() -> Result<()> {
    // Several times the periods that decide about contact: 600 queries, one every 5 ms.
    const QUERIES: usize = 600;
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    for site in SITES {
        let server = site.v4(Public::Dns).into();
        let steady = lab.ask_steadily("client-e", server, "www.shop.test.", RecordType::A)?;
        lab.lose_one_heartbeat(site.name)?;
        wait_until(Duration::from_secs(10), "one datagram is lost", || {
            lab.heartbeats_lost(site.name).is_ok_and(|lost| lost == 1)
        })?;
        let lost_at = steady.sent();
        wait_until(Duration::from_secs(30), "the loss has had its time", || steady.sent() >= lost_at + QUERIES)?;
        let both = SITES.map(|site| IpAddr::from(site.v4(Public::Www)));
        for asked in steady.finish()? {
            assert_eq!(asked.answer.map(|(_, addresses)| addresses), Some(both.to_vec()));
        }
        assert_eq!(lab.heartbeats_lost(site.name)?, 1);
    }
    Ok(())
}
