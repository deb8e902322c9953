"""The plan: settings made definite, everything checked and estimated before the costly part."""
