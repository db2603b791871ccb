"""How far to trust a judge: its agreement with the known truth of the toy world."""
