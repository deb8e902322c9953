"""The algebra of adapters: everything is done on the change of a weight (the delta), never on its factors apart.

(sum of B) (sum of A) is not the sum of B A: merging factors, as some tools do, adds cross terms and squares the weights.
"""
