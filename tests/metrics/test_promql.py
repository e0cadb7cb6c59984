import unittest

from promql import named


class Expressions(unittest.TestCase):
    def test_metrics_labels_and_values_are_told_apart(self):
        for text, metrics, labels in [
            ("up", [("up", {})], set()),
            ("a_b > 0", [("a_b", {})], set()),
            ("count(x_y == 0) or vector(0)", [("x_y", {})], set()),
            ('sum by (c) (rate(a_total{d=~"e|f",g!="h"}[5m]))', [("a_total", {"d": '=~"e|f"', "g": '!="h"'})], {"c"}),
            ("sum(a) by (b, c) / ignoring(d) group_left sum(e)", [("a", {}), ("e", {})], {"b", "c", "d"}),
            ("histogram_quantile(0.9, sum by (le) (rate(a_bucket[1h]))) > 30", [("a_bucket", {})], {"le"}),
        ]:
            found = named(text)
            self.assertEqual((found.metrics, found.labels), (metrics, labels), text)

    def test_what_is_no_expression_is_refused(self):
        with self.assertRaises(ValueError):
            named("a ; b")


if __name__ == "__main__":
    unittest.main()
