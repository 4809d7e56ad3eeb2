//! The name server as the world's programs see it: dig, kdig, hickory's client; the program's answers and the agent's.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use hickory_net::{
    client::{Client, ClientHandle},
    runtime::TokioRuntimeProvider,
    udp::UdpClientStream,
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use lab::{
    FAMILIES, Lab, Options,
    plan::{EAST, Public, SITES, WEST},
};

const NAME: &str = "www.shop.test.";

fn everything_up() -> Result<Lab> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(lab)
}

fn expected(family: usize) -> Vec<IpAddr> {
    SITES.map(|site| site.public(Public::Www)[family]).to_vec()
}

fn servers() -> Vec<IpAddr> {
    SITES.map(|site| site.public(Public::Dns)).concat()
}

#[test]
fn dig_gets_the_answer() -> Result<()> {
    let lab = everything_up()?;
    for server in servers() {
        for (kind, family) in FAMILIES {
            assert_eq!(lab.dig("client-w", server, NAME, kind)?, expected(family));
        }
    }
    // As people type it, and with what dig adds by itself: EDNS and a cookie.
    let output = lab.node("client-e")?.exec(&["dig", "@192.0.2.2", "www.shop.test"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("status: NOERROR"), "{text}");
    assert!(text.contains("flags: qr aa rd;"), "{text}");
    assert!(text.contains("www.shop.test.\t\t5\tIN\tA\t192.0.2.80"), "{text}");
    assert!(!text.contains("WARNING: Message") && !text.contains("malformed"), "{text}");
    Ok(())
}

#[test]
fn kdig_gets_the_answer() -> Result<()> {
    let lab = everything_up()?;
    for server in servers() {
        for (kind, family) in FAMILIES {
            for transport in ["+notcp", "+tcp"] {
                let at = format!("@{server}");
                let kdig = ["kdig", "+short", "+retry=0", "+time=2", transport, &at, NAME, &kind.to_string()];
                let output = lab.node("client-w")?.exec(&kdig)?;
                let text = String::from_utf8(output.stdout)?;
                let addresses: Vec<IpAddr> = text
                    .lines()
                    .map(|line| line.parse().with_context(|| format!("kdig printed {text}")))
                    .collect::<Result<_>>()?;
                assert_eq!(addresses, expected(family), "{kdig:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn hickorys_client_gets_the_answer() -> Result<()> {
    let lab = everything_up()?;
    for server in servers() {
        for (kind, family) in FAMILIES {
            let answer = lab.node("client-e")?.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(ask_with_hickory(SocketAddr::new(server, 53), kind))
            })?;
            assert_eq!(answer, expected(family));
        }
    }
    Ok(())
}

async fn ask_with_hickory(server: SocketAddr, kind: RecordType) -> Result<Vec<IpAddr>> {
    let stream = UdpClientStream::builder(server, TokioRuntimeProvider::default()).build();
    let (mut client, background) = Client::<TokioRuntimeProvider>::from_sender(stream);
    tokio::spawn(background);
    let answer = client.query(Name::from_ascii(NAME)?, DNSClass::IN, kind).await?;
    Ok(lab::dns::addresses(&answer))
}

/// The program and the agent answer from one table: UDP, which the program takes, and TCP, which it leaves alone.
#[test]
fn the_same_answer_over_udp_and_tcp() -> Result<()> {
    let lab = everything_up()?;
    for server in servers() {
        for (kind, _) in FAMILIES {
            let udp = lab.query("client-e", server, NAME, kind)?;
            let tcp = lab.query_tcp("client-e", server, NAME, kind)?;
            assert!(udp.metadata.authoritative);
            assert_eq!(udp.answers, tcp.answers);
            assert_eq!(udp.answers.len(), 2);
        }
    }
    Ok(())
}

/// Every other type and name: the agent's own server, over UDP and TCP, IPv4 and IPv6.
#[test]
fn static_records_come_by_the_slow_path() -> Result<()> {
    let lab = everything_up()?;
    let cases = [
        ("shop.test.", RecordType::SOA, "ns1.shop.test. hostmaster.shop.test. 2026010101 3600 600 604800 60"),
        ("shop.test.", RecordType::NS, "ns1.shop.test."),
        ("shop.test.", RecordType::MX, "10 mail.shop.test."),
        ("shop.test.", RecordType::TXT, "v=spf1 mx -all"),
        ("shop.test.", RecordType::CAA, "issue"),
        ("_http._tcp.shop.test.", RecordType::SRV, "0 0 80 www.shop.test."),
        ("mail.shop.test.", RecordType::A, "192.0.2.25"),
        ("mail.shop.test.", RecordType::AAAA, "2001:db8:1::25"),
        ("any.pages.shop.test.", RecordType::A, "192.0.2.90"),
        ("store.shop.test.", RecordType::CNAME, "www.shop.test."),
    ];
    for server in servers() {
        for (name, kind, data) in cases {
            let answers = [lab.query("client-w", server, name, kind)?, lab.query_tcp("client-w", server, name, kind)?];
            for answer in answers {
                assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{name} {kind} from {server}");
                assert!(answer.metadata.authoritative);
                assert!(holds(&answer, data), "{name} {kind} from {server}: {:?}", answer.answers);
            }
        }
    }
    Ok(())
}

#[test]
fn a_name_with_other_types_a_missing_name_and_a_foreign_one() -> Result<()> {
    let lab = everything_up()?;
    for server in servers() {
        for (name, kind, code) in [
            (NAME, RecordType::TXT, ResponseCode::NoError),
            ("missing.shop.test.", RecordType::A, ResponseCode::NXDomain),
            ("www.example.", RecordType::A, ResponseCode::Refused),
        ] {
            let answer = lab.query("client-e", server, name, kind)?;
            assert_eq!(answer.metadata.response_code, code, "{name} {kind} from {server}");
            assert!(answer.answers.is_empty());
            // RFC 2308 §3: a negative answer from the zone carries its SOA.
            let soa = answer.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
            assert_eq!(soa, code != ResponseCode::Refused, "{name} {kind} from {server}");
        }
    }
    Ok(())
}

fn holds(answer: &Message, data: &str) -> bool {
    answer.answers.iter().any(|record| record.data.to_string().contains(data))
}
