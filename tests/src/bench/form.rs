//! Load with messages as bytes: a request is a form, encoded once, in which each call fills in its number,
//! and of an answer only what the client needs is decoded. So a server is measured without what a client's
//! language takes for its messages.

use bytes::Bytes;
use prost::Message;

use super::connection::Connection;
use super::load::Call;
use super::raw::RawClient;

/// Digits of a number that are filled in at most.
const DIGITS: u32 = 9;

/// An encoded message with blanks for the digits of a number.
#[derive(Debug, Clone)]
pub(super) struct Form {
    message: Vec<u8>,
    /// Where each digit goes, and the power of ten that it counts.
    blanks: Vec<(usize, u64)>,
}

impl Form {
    /// The form of messages that differ by the decimal digits of a number, wherever and however many they
    /// have of it, and are of one length.
    pub(super) fn of<M: Message>(message: impl Fn(u64) -> M) -> Self {
        let zero = message(0).encode_to_vec();
        let mut blanks = Vec::new();
        for power in (0..DIGITS).map(|digit| 10_u64.pow(digit)) {
            let one = message(power).encode_to_vec();
            let pairs = zero.iter().zip(&one).enumerate();
            let digits = pairs.filter(|(_, pair)| *pair == (&b'0', &b'1'));
            blanks.extend(digits.map(|(place, _)| (place, power)));
        }
        Self {
            message: zero,
            blanks,
        }
    }

    /// The message with a number filled in.
    pub(super) fn filled(&self, number: u64) -> Bytes {
        let mut message = self.message.clone();
        for (place, power) in &self.blanks {
            // A digit is below ten.
            message[*place] = b'0' + (number / power % 10) as u8;
        }
        message.into()
    }
}

/// What one client says again and again, and what it makes of the answers.
pub(super) trait Script: Send + 'static {
    /// The method, such as `/muster.offers.v1.OffersService/ListOffers`.
    const PATH: &'static str;

    /// What is said.
    fn form(&self) -> Form;

    /// Looks at an answer.
    fn answered(&mut self, answer: Bytes) -> anyhow::Result<()>;

    /// Puts back what a window's calls have taken.
    fn rest(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
}

/// A client that follows a script.
pub(super) struct Scripted<S> {
    client: RawClient,
    script: S,
    form: Form,
    next: u64,
}

impl<S: Script> Scripted<S> {
    pub(super) fn new(connection: &Connection, script: S) -> Self {
        Self {
            client: RawClient::new(connection.clone(), S::PATH),
            form: script.form(),
            script,
            next: 0,
        }
    }
}

impl<S: Script> Call for Scripted<S> {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let request = self.form.filled(self.next);
        self.next += 1;
        let answer = self.client.call(request).await?;
        self.script.answered(answer)?;
        Ok(1)
    }

    async fn rest(&mut self) -> anyhow::Result<()> {
        self.script.rest().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blank_takes_its_digit_of_the_number() {
        let message =
            |number: u64| format!("0-1-{number:09}, {}, {:02}", number % 10, number % 100);
        let form = Form::of(message);
        for number in [0, 7, 1_234, 999_999_999] {
            let filled = String::decode(form.filled(number)).unwrap();
            assert_eq!(filled, message(number));
        }
    }
}
