"""Networks that several systems share: text towers, image towers, the fundus pair."""
