"""What a whole index gives away: names of patients, and one picture on both sides of a border."""
