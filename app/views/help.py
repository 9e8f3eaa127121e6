"""One panel a view that teaches its idea, with the equation."""

from __future__ import annotations

from app.components.html import tag, text
from app.selection import Tab

WORDS: dict[Tab, tuple[str, str]] = {
    "overview": (
        "How is a re-identification model judged?",
        """
<p>A <b>query</b> shows one person; the <b>gallery</b> is sorted by its distance to the query. Images of the
same person by <i>another</i> camera are right, other people are wrong, and images of the same person by the
<i>same</i> camera are ignored, since finding them would be easy.</p>
<p class="eq">AP = (1/m) Σ<sub>k=1…m</sub> k / r<sub>k</sub> &nbsp;·&nbsp; mAP = mean AP &nbsp;·&nbsp; CMC(k) =
share of queries whose first match stands at rank k or before &nbsp;·&nbsp; INP = m / r<sub>m</sub></p>
<p>m matches stand at ranks r<sub>1</sub> &lt; … &lt; r<sub>m</sub>, counted among the images that are not
ignored. Rank-1 is CMC(1); mINP looks at the last match, the hardest one. The intervals say what would change
with other people in the test: identities are drawn anew 1,000 times (bootstrap), 95 % of the results lie
between the bounds. <b>Click</b> a point of the curve or a cell of the matrix to walk through the queries behind
it.</p>""",
    ),
    "rank": (
        "Why does this image stand here?",
        """
<p class="eq">d² = ‖Δ<sub>G</sub>‖² + Σ<sub>s</sub>⟨δ<sub>s</sub>, Δ<sub>L</sub>⟩ + ⟨δ<sub>b</sub>,
Δ<sub>L</sub>⟩, &nbsp; δ<sub>s</sub> = B<sub>s</sub>p<sub>s</sub><sup>q</sup>/n<sup>q</sup> −
B<sub>s</sub>p<sub>s</sub><sup>g</sup>/n<sup>g</sup></p>
<p>The squared distance is the sum of what the global branch (G) and the parts (1 = head, … from the top) say.
The small bars under each image are these terms: <b>up</b> adds to the distance, <b>down</b> takes from it. The
sliders give a stream more or less weight, before the embedding is normalised, f<sub>L</sub>(w) = Σ<sub>s</sub>
w<sub>s</sub>B<sub>s</sub>p<sub>s</sub> + b, for the query and for every gallery image: see which part helps and
which one misleads.</p>
<p><b>Flip</b> averages each image with its mirror. <b>Re-rank</b> trusts images whose neighbourhoods overlap
(k-reciprocal, Zhong et al. 2017). <b>Same person?</b> asks the verification question: which distance is near
enough?</p>""",
    ),
    "attention": (
        "What is cross-correlated attention?",
        """
<p class="eq">A′ = g(q) f(q′)ᵀ &nbsp;·&nbsp; A = φ([A′, A′ᵀ] W<sub>α</sub>) &nbsp;·&nbsp; z = φ((A h(q) / MN)
W<sub>w</sub>) + q &nbsp; (Eq. 1–3)</p>
<p>A′<sub>ij</sub> says how strongly position i of Q and position j of Q′ fire together. Each position then
gathers from where A points: row i of A is <b>where i gathers from</b>, column i is <b>who gathers from i</b>.
In SS1, Q and Q′ are the same map of the whole image; in the parts' CC2, Q is the part and Q′ the same strip of
the global branch. <b>Votes</b> splits A exactly into what A′ and what its transpose contribute before φ.
<b>Round trip</b> is the share of the correlation that goes from i to Q′ and comes home to i. <b>Across
images</b> correlates the query's part with the other image's strip: a question that training never asked.</p>
<p>A map is not yet an explanation: the Parts view and <code>ccan trust</code> test what these maps are
worth.</p>""",
    ),
    "parts": (
        "What do the parts see, and does it matter?",
        """
<p class="eq">f<sub>L</sub> = Σ<sub>s</sub> B<sub>s</sub> p<sub>s</sub> + b, &nbsp; p<sub>s</sub> =
GAP(x<sub>s</sub>) &nbsp;·&nbsp; energy<sub>s</sub>(r) = ‖x<sub>s,r</sub>‖</p>
<p>The image is cut into k<sub>p</sub> horizontal strips, each with a stream of its own (section 3.3).
<b>Energy</b> is how strongly a stream fires at a position. The <b>matrix</b> compares every strip of one image
with every strip of the other: a diagonal means that the parts lie alike, a shifted diagonal a badly cut box.
<b>Knock-out</b> leaves a stream out, for the query and the whole gallery. The <b>brush</b> hides what you paint
from the network, and ranks again: if hiding the bag changes nothing, the bag did not matter.</p>
<p><b>Grad-CAM</b> and its family weigh a stream's channels by the gradient of a score. Each map has its
faithfulness beside it: how much faster the query fails when the map's best cells are hidden first than when
they are hidden last, in units of the distance. A map that does not beat the centre of the image explains
nothing that a blind guess would not.</p>""",
    ),
    "map": (
        "What does a map of embeddings show, and what not?",
        """
<p class="eq">p<sub>ij</sub> ∝ exp(−‖f<sub>i</sub> − f<sub>j</sub>‖² / 2σ<sub>i</sub>²) &nbsp;·&nbsp;
q<sub>ij</sub> ∝ (1 + ‖y<sub>i</sub> − y<sub>j</sub>‖²)<sup>−1</sup> &nbsp;·&nbsp; t-SNE: least Σ p log (p / q)</p>
<p>t-SNE puts images side by side that are <b>near in the embedding</b>, and pays little for everything else: how far
two groups lie apart, how large they are and the space between them mean nothing. <b>G</b>, <b>L</b> and <b>joint</b>
begin from the same places (the first two principal components), so that a group that only one branch tears apart can
be seen.</p>
<p>Click a point: the lines lead to its <b>true</b> nearest images. A long line is a neighbour that the map has lost.
<b>Trust</b> fades the points of which the map has lost most; <b>trustworthiness</b> (0 to 1) says the same of the
whole map. Draw a lasso around what looks odd, look at its images, tag them, and walk through its queries in the other
views.</p>""",
    ),
    "errors": (
        "How does one go through errors?",
        """
<p>Begin with the hardest queries (<b>h</b>), look at each in <b>Rank</b> and <b>Attention</b>, come back, and name what
you see with one key. <b>Kinds</b> are rules that anybody can check (their numbers stand beside them); <b>tags</b> are
what you say. When twenty queries are tagged, compare: does the rule see what you see?</p>
<p>An image <b>taken for</b> another stands before the first match of a failed query. A <b>hub</b> is near to everybody:
in high dimensions a few points are among the nearest of very many others (hubness), and re-ranking helps against
them. A <b>label suspect</b> is a pair of identities that look like one person to the network: some are look-alikes,
some are mistakes in the labels, and only eyes can tell.</p>
<p>All of it is kept in a file that only grows: several people may work at once, a crash loses nothing, and
<code>ccan.cases.Cases</code> reads it in a notebook.</p>""",
    ),
    "compare": (
        "Is one model better, and for which queries?",
        """
<p class="eq">McNemar: with b broken and c fixed queries, p = P(a split of b + c coin tosses at least as uneven)</p>
<p>Two averages hide what changed: a model may fix twenty queries and break eighteen others. Each query stands in one
of four fields: right in both, wrong in both, <b>fixed</b>, <b>broken</b>. Only the last two say anything about a
difference (McNemar's test). The test takes queries for independent, which queries of one person are not; the
intervals beside it draw <b>persons</b> anew, and say what would change with other people. Neither says what another
training of the same network would give: that is the spread over seeds, in <b>Runs</b>.</p>
<p>Walk through the fixed or the broken ones and ask why: which of the two looks at the bag, and which at the
wall?</p>""",
    ),
    "learn": (
        "Why predict first?",
        """
<p>Who sees the answer first finds it obvious. Here you commit yourself before: which image shows the same person, and
what decides it? Then three things stand side by side: the <b>truth</b> of the labels, the <b>model's</b> choice among
the same images, and where its account of the similarity rests.</p>
<p class="eq">f<sub>q</sub> · f<sub>g</sub> = Σ<sub>s,r</sub> ⟨B<sub>s</sub>x<sub>s,r</sub>, f<sub>g</sub>⟩ / (R n)
+ … &nbsp;·&nbsp; overlap = |yours ∩ model's| / |yours ∪ model's|</p>
<p>The map is the <b>ledger</b>: what each position of the parts' last maps adds to the inner product with the match. It
adds up exactly, and still need not be what a person would call a reason. The overlap takes as many of its strongest
cells as you have painted; beside it stands what random cells would give.</p>""",
    ),
    "runs": (
        "What does one read in a curve and in a table of ablations?",
        """
<p class="eq">L = L<sub>ID</sub><sup>G</sup> + L<sub>ID</sub><sup>L</sup> + L<sub>T</sub><sup>G</sup> +
L<sub>T</sub><sup>L</sup></p>
<p>At the beginning an identity loss is about log K, K the number of people: the network guesses. Then it falls; when
the <b>active</b> triplets run out while the identity loss still falls, the triplet loss has done its work. A table of
ablations needs the <b>spread over seeds</b>: a difference smaller than that is nothing, whatever its p, since p asks
about other people in the test and not about another training.</p>""",
    ),
}


def panel(tab: Tab) -> str:
    """The view's panel, closed until it is asked for."""
    title, words = WORDS[tab]
    return tag(
        "details",
        text(title, "summary") + tag("div", words, class_="lesson"),
        class_="help",
    )
