//! What goes wrong between the sensors and the server, on purpose.

use std::str::FromStr;

use super::Error;

/// Faults of a device and its network. Probabilities are 0 to 1 and per packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A block is lost before it is sent.
    pub drop: f64,
    /// The connection breaks, on average after this many seconds of device time; 0: never.
    pub cut_s: f64,
    /// The uplink carries no more than this many kilobytes a real second; 0: no limit.
    pub slow_kbps: f64,
    /// In front of a packet goes an empty text, a torn JSON text, or nothing but the packet has wild and missing numbers.
    pub garbage: f64,
    /// A packet changes places with the next.
    pub reorder: f64,
    /// A packet is sent twice.
    pub duplicate: f64,
}

impl FromStr for Faults {
    type Err = Error;

    /// Reads `drop=0.01,cut=30,slow=200,garbage=0.01,reorder=0.01,duplicate=0.01`, any of them.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let failed = |expected| Error::Fault { text: part.to_owned(), expected };
            let names = "one of drop=P, cut=SECONDS, slow=KBPS, garbage=P, reorder=P, duplicate=P";
            let (name, value) = part.split_once('=').ok_or_else(|| failed(names))?;
            let (field, probability) = match name {
                "drop" => (&mut faults.drop, true),
                "cut" => (&mut faults.cut_s, false),
                "slow" => (&mut faults.slow_kbps, false),
                "garbage" => (&mut faults.garbage, true),
                "reorder" => (&mut faults.reorder, true),
                "duplicate" => (&mut faults.duplicate, true),
                _ => return Err(failed(names)),
            };
            let value: f64 = value.parse().map_err(|_| failed("a number is expected after ="))?;
            if !value.is_finite() || value < 0.0 || (probability && value > 1.0) {
                return Err(failed("a probability is 0 to 1, a time or rate not negative"));
            }
            *field = value;
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_by_name() {
        let faults: Faults = "drop=0.5, cut=30,slow=200".parse().unwrap();
        assert_eq!(faults, Faults { drop: 0.5, cut_s: 30.0, slow_kbps: 200.0, ..Faults::default() });
        assert_eq!("".parse::<Faults>().unwrap(), Faults::default());
        for bad in ["drop", "drop=2", "drop=x", "cut=-1", "smoke=1", "drop=NaN"] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }
}
