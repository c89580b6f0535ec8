<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="HyperPrep">
<title>HyperPrep: quality of all sessions</title>
<style>
{{ "report.css" | raw_file | safe }}
{{ "group.css" | raw_file | safe }}
</style>
</head>
<body>
<a class="hp-skip" href="#table">Skip to the table</a>
<header class="hp-top"><span class="hp-brand">HyperPrep: quality of all sessions</span></header>
<main>
<h1>{{ lines | length }} scan{{ "" if lines | length == 1 else "s" }} of {{ participants }} participant{{ "" if participants == 1 else "s" }}</h1>
<p class="hp-about">Press a heading to sort by it, again to turn the order round. ▲ and ▼ mark outliers: robust z
above {{ "%g" | format(far) }}, higher or lower than the others{% if few %} (none is called with fewer than {{ fewest }} scans){% endif %}.
Orange cells are outside the expected limits. Dots show every scan{% if lines | length > 500 %}, or bars how many there are{% endif %}, the line the median.{% if left_out %} These are the key figures; all others are in group_quality.tsv.{% endif %}</p>
<div class="hp-tools">
<label>Find <input type="search" id="find" placeholder="participant or session"></label>
<label><input type="checkbox" id="marked"> only marked scans</label>
<label><input type="checkbox" id="all"> all figures ({{ columns | length }})</label>
<span id="count" role="status"></span>
</div>
<div class="hp-scroll">
<table class="hp-table hp-group" id="table">
<caption class="hp-skip">Quality figures, one line per scan</caption>
<thead>
<tr>
<th scope="col" aria-sort="ascending"><button type="button">Participant</button></th>
{% if with_sessions %}<th scope="col"><button type="button">Session</button></th>{% endif %}
<th scope="col" class="hp-number" title="Key figures that are outliers or outside their limits"><button type="button">Marks</button></th>
{% for column in columns %}
<th scope="col" class="hp-number{{ "" if column.known else " other" }}" title="{{ column.measure.about }}"><button type="button">{{ column.measure.label }}{% if column.measure.unit %} ({{ column.measure.unit }}){% endif %}</button></th>
{% endfor %}
</tr>
<tr class="strips" aria-hidden="true">
<td{% if with_sessions %} colspan="2"{% endif %}></td><td></td>
{% for column in columns %}
<td class="hp-number{{ "" if column.known else " other" }}">{{ column.strip() | safe }}<span>{{ column.measure.expected() }}</span></td>
{% endfor %}
</tr>
</thead>
<tbody>
{% for line in lines %}
<tr data-row="{{ loop.index0 }}" data-marks="{{ line.marks }}">
<th scope="row" data-value="{{ line.participant }}">{% if line.page %}<a href="{{ line.page }}">{{ line.participant }}</a>{% else %}{{ line.participant }}{% endif %}</th>
{% if with_sessions %}<td data-value="{{ line.session }}">{{ line.session | replace("ses-", "") }}</td>{% endif %}
<td class="hp-number" data-value="{{ line.marks }}" title="{{ line.warnings | join(" ") }}">{{ line.marks or "" }}</td>
{% for cell in line.cells %}
<td class="hp-number{{ " hp-beyond" if cell.beyond }}{{ " far" if cell.far }}{{ "" if columns[loop.index0].known else " other" }}" data-value="{{ "" if cell.value is none else cell.value }}"{% if cell.far %} title="Outlier: robust z {{ "%+.1f" | format(cell.far) }}"{% endif %}>{% if cell.far %}<span class="mark">{{ "▲" if cell.far > 0 else "▼" }}</span> {% endif %}{{ cell.text }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="hp-about">HyperPrep {{ version }}. Participants are linked to where their page lies beside this file.</p>
</main>
<script>
{{ "group.js" | raw_file | safe }}
</script>
</body>
</html>
