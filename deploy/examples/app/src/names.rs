//! `names`: a name server that knows one address.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result};
use clap::Args;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};

use crate::signals::Signals;

/// How long an answer may be kept, in seconds: not at all, so that each question tells who answers.
const TIME_TO_LIVE: u32 = 0;

/// Every name has this IPv4 address, and none of IPv6.
#[derive(Args, Debug)]
pub(crate) struct NamesArgs {
    /// UDP port, on every address
    #[arg(long, env = "PORT", default_value_t = 5353)]
    port: u16,

    /// Address to answer with
    #[arg(long, env = "ADDRESS")]
    address: Ipv4Addr,
}

pub(crate) fn run(arguments: &NamesArgs, signals: &Signals) -> Result<ExitCode> {
    let (port, address) = (arguments.port, arguments.address);
    let socket = listen(port)?;
    eprintln!("example: answers every question for a name with {address}, on UDP port {port}");
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            // An error is about an earlier answer, which did not reach its client.
            let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            if let Some(answer) = answer(&buffer[..length], address) {
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    signals.wait();
    Ok(ExitCode::SUCCESS)
}

/// Both families where the kernel has both.
fn listen(port: u16) -> Result<UdpSocket> {
    UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| UdpSocket::bind(("0.0.0.0", port)))
        .with_context(|| format!("cannot listen on UDP port {port}"))
}

/// The answer to a message; none to what is no question.
fn answer(message: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let message = Packet::parse(message).ok()?;
    if message.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut message = message.into_reply();
    message.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    message.additional_records.clear();
    if let [asked] = &message.questions[..]
        && asked.qtype == QTYPE::TYPE(TYPE::A)
    {
        let record = RData::A(A::from(address));
        let record = ResourceRecord::new(asked.qname.clone(), CLASS::IN, TIME_TO_LIVE, record);
        message.answers.push(record);
    }
    message.build_bytes_vec_compressed().ok()
}

#[cfg(test)]
mod tests {
    use simple_dns::{Name, Question};

    use super::*;

    fn question(kind: TYPE) -> Vec<u8> {
        let name = Name::new("shop.test").unwrap();
        let mut message = Packet::new_query(7);
        let asked = Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false);
        message.questions.push(asked);
        message.build_bytes_vec().unwrap()
    }

    #[test]
    fn every_name_has_the_address_and_no_other() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        for (kind, expected) in [(TYPE::A, vec![address]), (TYPE::AAAA, vec![])] {
            let answer = answer(&question(kind), address).unwrap();
            let answer = Packet::parse(&answer).unwrap();
            assert_eq!(answer.id(), 7);
            assert!(answer.has_flags(PacketFlag::RESPONSE));
            let records = answer.answers.iter().map(|record| match &record.rdata {
                RData::A(address) => Ipv4Addr::from(address.address),
                other => panic!("{other:?}"),
            });
            assert_eq!(records.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        let address = Ipv4Addr::LOCALHOST;
        let answered = answer(&question(TYPE::A), address).unwrap();
        for message in [&answered[..], b"", b"GET / HTTP/1.1", &[0xff; 600]] {
            assert_eq!(answer(message, address), None, "{message:?}");
        }
    }
}
