package conf

import (
	"cmp"
	"slices"
	"strings"
)

// Suggest returns the name of names that is nearest to the unknown one, or ""
// if none is near enough to be worth mentioning. It sorts names.
func Suggest(unknown string, names []string) string {
	flat := flatten(unknown)
	best, bestDistance := "", len(flat)/3+1
	slices.Sort(names)
	for _, n := range names {
		if d := distance(flat, flatten(n)); d < bestDistance || d == bestDistance && best == "" && d < len(flat) {
			best, bestDistance = n, d
		}
	}
	return best
}

// flatten takes out what people confuse without noticing.
func flatten(name string) string {
	return strings.NewReplacer("_", "-").Replace(strings.ToLower(name))
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that make a out of b.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

func sortByLine(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}
