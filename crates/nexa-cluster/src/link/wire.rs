//! Between the words of the protocol and those of the wire. What came is judged here; what goes out cannot be wrong.

use nexa_member::link::{Frame, Hello, Lane, Welcome};
use nexa_proto::internal_v1 as wire;
use nexa_types::{Generation, NodeId};
use tonic::Status;

/// What a dialler sends before its first TLS byte, with the class after it.
pub(super) const PREFACE: [u8; 4] = *b"NXL1";

pub(super) fn hello(hello: &Hello) -> wire::Hello {
    wire::Hello {
        cluster: hello.cluster.clone(),
        node: hello.node.as_str().to_owned(),
        generation: hello.generation.0,
        to: hello.to.as_str().to_owned(),
        protocol_min: u32::from(hello.protocol.0),
        protocol_max: u32::from(hello.protocol.1),
        class: hello.lane.class as u32,
        connection: u32::from(hello.lane.connection),
    }
}

pub(super) fn read_hello(hello: wire::Hello) -> Result<Hello, Status> {
    let lane = Lane::from_wire(hello.class, hello.connection)
        .ok_or_else(|| Status::invalid_argument(format!("no lane {}.{}", hello.class, hello.connection)))?;
    // A version beyond what is counted here is a version that this build does not speak.
    let version = |version: u32| u16::try_from(version).unwrap_or(u16::MAX);
    Ok(Hello {
        cluster: hello.cluster,
        node: node(&hello.node)?,
        generation: Generation(hello.generation),
        to: node(&hello.to)?,
        protocol: (version(hello.protocol_min), version(hello.protocol_max)),
        lane,
    })
}

pub(super) fn welcome(welcome: Welcome) -> wire::Welcome {
    wire::Welcome {
        node: welcome.node.as_str().to_owned(),
        generation: welcome.generation.0,
        protocol: u32::from(welcome.protocol),
        last: welcome.last,
        credit: welcome.credit,
    }
}

pub(super) fn read_welcome(welcome: &wire::Welcome) -> Result<Welcome, Status> {
    Ok(Welcome {
        node: node(&welcome.node)?,
        generation: Generation(welcome.generation),
        protocol: u16::try_from(welcome.protocol).unwrap_or(u16::MAX),
        last: welcome.last,
        credit: welcome.credit,
    })
}

pub(super) fn frame(frame: Frame) -> wire::Frame {
    match frame {
        Frame::Tell { service, body } => wire::Frame { service: u32::from(service), body, ..wire::Frame::default() },
        Frame::Ask { service, ticket, remaining, body } => wire::Frame {
            service: u32::from(service),
            body,
            ticket,
            remaining_ms: u32::try_from(remaining.0).unwrap_or(u32::MAX),
        },
        Frame::Void => wire::Frame::default(),
    }
}

fn node(name: &str) -> Result<NodeId, Status> {
    NodeId::new(name).map_err(|error| Status::invalid_argument(error.to_string()))
}
