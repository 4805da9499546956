//! A name server on UDP that says what it is told to.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SOA, SRV},
    },
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// What is known of a name.
#[derive(Clone)]
pub(super) enum Known {
    /// It has these records, of these seconds.
    Records(Vec<(u32, RData)>),
    /// The answer is a failure.
    Failure(ResponseCode),
    /// There is no answer.
    Silence,
}

/// Names in lower case and with a dot at the end. Others do not exist.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(zone: Vec<(&'static str, Known)>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let zone: HashMap<_, _> = zone.into_iter().collect();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                if let Some(answer) = answer(&zone, &question, &log) {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        Self { address, asked, task }
    }

    /// The questions so far: name and type.
    pub(super) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }
}

fn answer(
    zone: &HashMap<&str, Known>,
    question: &Message,
    log: &Mutex<Vec<String>>,
) -> Option<Message> {
    let query = question.queries[0].clone();
    let (name, wanted) = (query.name().to_ascii().to_lowercase(), query.query_type());
    log.lock().unwrap().push(format!("{name} {wanted}"));
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    let owner = query.name().clone();
    answer.add_query(query);
    match zone.get(&*name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(Known::Failure(code)) => answer.metadata.response_code = *code,
        Some(Known::Silence) => return None,
        Some(Known::Records(_)) => add(zone, &name, owner, wanted, &mut answer),
    }
    if answer.answers.is_empty() && !matches!(zone.get(&*name), Some(Known::Failure(_))) {
        let root = Name::root();
        let soa = RData::SOA(SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 3_600));
        answer.add_authority(Record::from_rdata(root, 3_600, soa));
    }
    Some(answer)
}

/// As a recursive name server does: an alias comes with what it stands for.
fn add(
    zone: &HashMap<&str, Known>,
    name: &str,
    owner: Name,
    wanted: RecordType,
    answer: &mut Message,
) {
    let Some(Known::Records(records)) = zone.get(name) else { return };
    for (ttl, data) in records {
        if data.record_type() == wanted {
            answer.add_answer(Record::from_rdata(owner.clone(), *ttl, data.clone()));
        } else if let RData::CNAME(CNAME(target)) = data {
            answer.add_answer(Record::from_rdata(owner.clone(), *ttl, data.clone()));
            // An alias of itself has no end.
            if answer.answers.len() < 4 {
                add(zone, &target.to_ascii(), target.clone(), wanted, answer);
            }
        }
    }
}

pub(super) fn ips(ttl: u32, ips: &[&str]) -> Known {
    Known::Records(
        ips.iter().map(|ip| (ttl, ip.parse::<std::net::IpAddr>().unwrap().into())).collect(),
    )
}

pub(super) fn alias(ttl: u32, target: &str) -> Known {
    Known::Records(vec![(ttl, RData::CNAME(CNAME(target.parse().unwrap())))])
}

/// From priority, weight, port and target.
pub(super) fn srv(ttl: u32, records: &[(u16, u16, u16, &str)]) -> Known {
    let record = |&(priority, weight, port, target): &(u16, u16, u16, &str)| {
        (ttl, RData::SRV(SRV::new(priority, weight, port, target.parse().unwrap())))
    };
    Known::Records(records.iter().map(record).collect())
}
