//! WebSocket (RFC 6455) as a carrier of the client protocol: the upgrade of an HTTP request, and frames.
//!
//! Nothing here meets a socket. The borders of frames and messages mean nothing to the protocol inside: [`FrameReader`]
//! turns frames into a stream of bytes, in place unless they may be compressed, and output is put behind [`data_header`]s or
//! [`deflated_header`]s.

mod deflate;
mod frames;
mod upgrade;

pub use deflate::{DEFLATED_BYTES_MIN, Deflater, Inflater};
pub use frames::{Control, FrameError, FrameReader, close_code, close_frame, data_header, deflated_header, pong_frame};
pub(crate) use upgrade::origin;
pub use upgrade::{Accepted, Facts, Refusal, Rules, check};
