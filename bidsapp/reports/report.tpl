<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="HyperPrep, NiReports">
<title>{{ title }}</title>
<style>
{% include "report.css" %}
</style>
{% for part in header %}
{{ part }}
{% endfor %}
</head>
<body>
<a class="hp-skip" href="#main">Skip to the content</a>
<header class="hp-top">
<span class="hp-brand">{{ title }}</span>
<nav aria-label="Sections">
{% for section in sections %}
<a href="#{{ section.name }}">{{ section.name }}</a>
{% endfor %}
</nav>
{% for part in navbar %}
{{ part }}
{% endfor %}
</header>
<main id="main">
{% for section in sections %}
<section class="hp-section" id="{{ section.name }}" aria-labelledby="{{ section.name }}-heading">
<h2 id="{{ section.name }}-heading">{{ section.name }}</h2>
{% set scans = section.reportlets | selectattr("title") | list %}
{% if scans | length > 1 %}
<p class="hp-jump">{% for reportlet in section.reportlets %}{% if reportlet.title %}<a href="#{{ section.name }}-{{ loop.index }}">{{ reportlet.title }}</a> {% endif %}{% endfor %}</p>
{% endif %}
{% for reportlet in section.reportlets %}
<div class="hp-reportlet" id="{{ section.name }}-{{ loop.index }}">
{% if reportlet.title %}<h3 class="hp-scan">{{ reportlet.title }}</h3>{% endif %}
{% if reportlet.subtitle %}<h4>{{ reportlet.subtitle }}</h4>{% endif %}
{% if reportlet.description %}<p class="hp-about">{{ reportlet.description }}</p>{% endif %}
<div class="hp-components">
{% for content, caption in reportlet.components %}
<div class="hp-component">
{% if caption %}<p class="hp-caption">{{ caption }}</p>{% endif %}
{{ content }}
</div>
{% endfor %}
</div>
</div>
{% endfor %}
</section>
{% endfor %}
</main>
{% for part in footer %}
{{ part }}
{% endfor %}
<script>
{% include "report.js" %}
</script>
</body>
</html>
