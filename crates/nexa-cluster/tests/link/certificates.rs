//! Who is not let in, and who is not talked to.

use hyper_util::rt::TokioIo;
use nexa_cluster::certs::{Authority, Identity};
use nexa_cluster::link::{LinkConfig, LinkError, TonicPeers};
use nexa_cluster::peers::{AskError, Class, NotSent, Peers, Service};
use nexa_ports::clock::Clock;
use nexa_ports::dice::SeededDice;
use nexa_proto::internal_v1::link_service_client::LinkServiceClient;
use nexa_proto::internal_v1::{Batch, Hello};
use nexa_types::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity as Shown, Uri};

use crate::desk::{Desk, Ear, id};

/// Dials `b` as a node would, shows a certificate or none, and says who it is. Gives the welcome's generation, or why
/// there was none.
async fn knock(to: SocketAddr, authority: &Authority, shown: Option<&Identity>, hello: Hello) -> Result<u64, String> {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.certificate())).domain_name("b");
    if let Some(shown) = shown {
        tls = tls.identity(Shown::from_pem(&shown.certificate, &shown.key));
    }
    let connector = tower::service_fn(move |_: Uri| async move {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&[b'N', b'X', b'L', b'1', Class::Control as u8]).await?;
        Ok::<_, std::io::Error>(TokioIo::new(stream))
    });
    let endpoint = Endpoint::from_static("https://b").tls_config(tls).unwrap();
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))?;
    let batches = tokio_stream::once(Batch { hello: Some(hello), ..Batch::default() });
    let answer = LinkServiceClient::new(channel).link(batches).await.map_err(|status| status.to_string())?;
    let first = answer.into_inner().message().await.map_err(|status| status.to_string())?;
    Ok(first.and_then(|batch| batch.welcome).ok_or("no welcome")?.generation)
}

fn hello(node: &str) -> Hello {
    Hello {
        cluster: "test".into(),
        node: node.into(),
        generation: 1,
        to: "b".into(),
        protocol_min: 1,
        protocol_max: 1,
        class: Class::Control as u32,
        connection: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_a_certificate_of_its_own_name_and_this_authority_is_let_in() {
    let desk = Desk::new();
    let b = desk.node("b", 3);
    desk.tell_members(&b, &[&b]);
    let (to, now) = (b.address(), desk.clock.now());
    let good = desk.identity("a");
    assert_eq!(knock(to, &desk.authority, Some(&good), hello("a")).await, Ok(3));

    let other = knock(to, &desk.authority, Some(&good), hello("c")).await.unwrap_err();
    assert!(other.contains("not made out to c"), "{other}");
    // No certificate has such a name, and none is taken for one that looks alike.
    let upper = knock(to, &desk.authority, Some(&good), hello("A")).await.unwrap_err();
    assert!(upper.contains("not made out to A"), "{upper}");

    let none = knock(to, &desk.authority, None, hello("a")).await.unwrap_err();
    assert!(!none.contains("made out"), "it did not come so far: {none}");

    let expired = desk.authority.issue(&id("a"), &[], Timestamp(now.0 - 3 * 86_400_000), 1).unwrap();
    let late = knock(to, &desk.authority, Some(&expired), hello("a")).await.unwrap_err();
    assert!(!late.contains("made out"), "it did not come so far: {late}");

    let strange = Authority::throwaway(now).unwrap().issue(&id("a"), &[], now, 1).unwrap();
    let unknown = knock(to, &desk.authority, Some(&strange), hello("a")).await.unwrap_err();
    assert!(!unknown.contains("made out"), "it did not come so far: {unknown}");

    // After all that, whoever is right is still let in.
    assert_eq!(knock(to, &desk.authority, Some(&good), hello("a")).await, Ok(3));
    let elsewhere = Hello { cluster: "other".into(), ..hello("a") };
    assert!(knock(to, &desk.authority, Some(&good), elsewhere).await.unwrap_err().contains("cluster"));
    let newer = Hello { protocol_min: 9, protocol_max: 9, ..hello("a") };
    assert!(knock(to, &desk.authority, Some(&good), newer).await.unwrap_err().contains("updated"));
    let lost = Hello { to: "z".into(), ..hello("a") };
    assert!(knock(to, &desk.authority, Some(&good), lost).await.unwrap_err().contains("z was wanted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_a_node_that_shows_the_certificate_of_another() {
    let desk = Desk::new();
    let (a, c) = (desk.node("a", 1), desk.node("c", 1));
    desk.tell_members(&c, &[&c]);
    // Somebody says that `b` is where `c` listens.
    a.peers.meet(&[(a.id.clone(), a.generation, String::new()), (id("b"), c.generation, c.address().to_string())]);
    let asked = a.peers.ask(&id("b"), Class::Control, Service::Queries, "echo".into(), Duration::from_secs(10)).await;
    assert!(matches!(asked, Err(AskError::NoAnswer | AskError::NotSent(NotSent::Gone))), "{asked:?}");
    assert_eq!(a.state(&id("b")).generation, None);
    assert!(!a.state(&id("b")).is_refused, "somebody does listen there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_with_the_certificate_of_another() {
    let desk = Desk::new();
    let config = |identity| LinkConfig {
        cluster: "test".into(),
        node: id("a"),
        identity,
        listen: ([127, 0, 0, 1], 0).into(),
        threads: 1,
        clock: desk.clock.clone(),
        dice: Arc::new(SeededDice::new(1)),
        on_undelivered: None,
    };
    let ear = Arc::new(Ear::default());
    let wrong = TonicPeers::start(config(desk.identity("c")), &ear).err().unwrap();
    assert_eq!(wrong.to_string(), "the certificate is made out to c, and this node is a");
    let own = desk.identity("a");
    let mixed = Identity { key: desk.identity("a").key, ..own.clone() };
    let broken = TonicPeers::start(config(mixed), &ear).err().unwrap();
    assert!(matches!(broken, LinkError::Tls { .. }), "{broken:?}");
    TonicPeers::start(config(own), &ear).unwrap();
}
