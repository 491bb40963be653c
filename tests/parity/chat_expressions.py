"""Pieces of templates, each with what Jinja may do to a value. VARIABLES stands for the conversation's own."""

VARIABLES = "{% set s = '  Ab\u00e9 c\u3000' %}{% set l = [3, 1, 2] %}{% set d = {'b': 1, 'a': [1, 2.5, none, true], 'c\u00e9': 'x\"y'} %}{% set n = namespace(x=1, y='q') %}"

EXPRESSIONS = """
{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abc'.strip('') }}
{{ s | trim }}|{{ 'xyx' | trim('x') }}|{{ s | length }}|{{ s | upper }}|{{ s | lower }}|{{ 'stra\u00dfe' | upper }}|{{ '\u039f\u03a3' | lower }}
{{ 'hello wORLD it\\'s' | title }}|{{ "hello wORLD it's x1y".title() }}|{{ 'hELLO' | capitalize }}|{{ 'hELLO'.capitalize() }}
{{ 'a b  c'.split() }}|{{ 'a b  c'.split(' ') }}|{{ 'a,b,c'.split(',', 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ ' a b '.split(none, 1) }}
{{ 'a\\nb\\r\\nc\\u2028d'.splitlines() }}|{{ 'k=v=w'.partition('=') }}|{{ 'k=v=w'.rpartition('=') }}
{{ 'abc'.startswith('ab') }}|{{ 'abc'.startswith(('x', 'a')) }}|{{ 'abc'.endswith('bc') }}|{{ 'abc'.find('c') }}|{{ '\u00e9c'.find('c') }}|{{ 'abc'.find('x') }}|{{ 'aXbXc'.count('X') }}
{{ 'aaa'.replace('a', 'b') }}|{{ 'aaa'.replace('a', 'b', 2) }}|{{ 'ab'.replace('', '-') }}|{{ 'aaa' | replace('a', 'b', 1) }}|{{ 12 | replace(1, 3) }}
{{ 'x'.join(['a', 'b']) }}|{{ ['a', 1, none] | join('-') }}|{{ [{'k': 1}, {'k': 2}] | join(',', attribute='k') }}|{{ 'abc' | join('.') }}
{{ 'a{}b{}'.format(1, 'x') }}|{{ '{0}{1}{0}'.format('a', 'b') }}|{{ '{a}{{}}'.format(a=2) }}|{{ '%s-%d%%' % ('a', 3) }}|{{ '%s' | format('x') }}
{{ 'abc'[0] }}|{{ 'abc'[-1] }}|{{ 'h\u00e9llo'[1:3] }}|{{ 'abc'[::-1] }}|{{ 'abc'[5] }}|{{ 'abcdef'[1:5:2] }}|{{ 'abc'[:-1] }}
{{ l }}|{{ l[0] }}|{{ l[-1] }}|{{ l[1:] }}|{{ l[::-1] }}|{{ l[7] is defined }}|{{ l + [4] }}|{{ l * 2 }}|{{ (1, 2) + (3,) }}|{{ (1,) }}|{{ () }}
{{ d }}|{{ d.a }}|{{ d['a'][1] }}|{{ d.zzz is defined }}|{{ d.items() | list }}|{{ d.keys() | list }}|{{ d.values() | list }}|{{ d.get('b') }}|{{ d.get('q') }}|{{ d.get('q', 5) }}
{{ d | tojson }}|{{ d | tojson(indent=2) }}|{{ d | tojson(ensure_ascii=true) }}|{{ d | tojson(separators=(',', ':')) }}|{{ d | tojson(sort_keys=true) }}|{{ [] | tojson(indent=1) }}|{{ {} | tojson }}
{{ 'q"\\\\\\n\\t\\x07\u00e9\\U0001F642' | tojson }}|{{ '\\U0001F642' | tojson(ensure_ascii=true) }}|{{ 1.0 | tojson }}|{{ 1e20 | tojson }}|{{ none | tojson }}|{{ {1: 2, none: 3, true: 4} | tojson }}
{{ d | dictsort }}|{{ {'B': 2, 'a': 1} | dictsort }}|{{ {'B': 2, 'a': 1} | dictsort(true) }}|{{ {'x': 2, 'y': 1} | dictsort(by='value') }}|{{ {'x': 2, 'y': 1} | dictsort(reverse=true) }}
{{ l | sort }}|{{ l | sort(reverse=true) }}|{{ ['b', 'A', 'c'] | sort }}|{{ ['b', 'A'] | sort(case_sensitive=true) }}|{{ [{'k': 2}, {'k': 1}] | sort(attribute='k') }}
{{ l | first }}|{{ l | last }}|{{ l | min }}|{{ l | max }}|{{ l | sum }}|{{ l | length }}|{{ [] | first is defined }}|{{ [1, 1, 2] | unique | list }}|{{ ['a', 'A'] | unique | list }}|{{ l | reverse | list }}|{{ 'abc' | reverse }}
{{ l | map('string') | list }}|{{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }}|{{ [{}] | map(attribute='z', default='-') | list }}|{{ ['a'] | map('upper') | join }}|{{ none | map('upper') | list }}
{{ l | select('odd') | list }}|{{ l | reject('gt', 1) | list }}|{{ [{'r': 'u'}, {'r': 'a'}, {}] | selectattr('r', 'equalto', 'u') | list }}|{{ [{'r': 0}, {'r': 1}] | selectattr('r') | list }}|{{ [{'r': 1}, {}] | rejectattr('r', 'defined') | list }}|{{ [0, 1, ''] | select | list }}
{{ none | default('x') }}|{{ zz | default('x') }}|{{ '' | default('x', true) }}|{{ zz | d }}|{{ false | default('x', boolean=true) }}|{{ d.q | default('y') }}
{{ '42' | int }}|{{ '4.7' | int }}|{{ 'x' | int }}|{{ 'x' | int(7) }}|{{ 3.9 | int }}|{{ true | int }}|{{ '1.5' | float }}|{{ 'x' | float }}|{{ -2 | abs }}|{{ 2.5 | round }}|{{ 3 | string + 'x' }}
{{ 7 / 2 }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ 7 % 3 }}|{{ -7 % 3 }}|{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 2 ** 3 ** 2 }}|{{ 1 + 2 * 3 }}|{{ (1 + 2) * 3 }}|{{ 7.0 // 2 }}|{{ 1 - 1 - 1 }}|{{ -l[0] }}|{{ 6 / 3 }}|{{ 0.1 + 0.2 }}|{{ 1e16 }}|{{ 1.5e-7 }}
{{ 1 ~ 'a' ~ none ~ true }}|{{ 'a' ~ 1 + 2 }}|{{ 'ab' * 2 }}|{{ 2 * 'ab' }}
{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ 1 == 1.0 }}|{{ 1 == true }}|{{ '1' == 1 }}|{{ [1] == [1] }}|{{ {'a': 1} == {'a': 1} }}|{{ none == false }}|{{ 'a' < 'b' }}|{{ zz == yy }}|{{ zz != 1 }}|{{ [0, false, ''] == [0, false, ''] }}
{{ 1 in l }}|{{ 5 not in l }}|{{ 'b' in 'abc' }}|{{ 'a' in d }}|{{ 0 in [1, 0] }}|{{ 'x' in zz }}|{{ none in [none] }}|{{ not 1 in l }}|{{ '' in 'abc' }}
{{ true and 'x' }}|{{ 0 or 'y' }}|{{ '' or [] or none }}|{{ 1 and 0 and 2 }}|{{ not zz }}|{{ not {} }}|{{ not [0] }}|{{ 1 if false }}|{{ 1 if true else 2 }}|{{ 1 if 0 else 2 if 0 else 3 }}
{{ 'a' is string }}|{{ 1 is number }}|{{ true is number }}|{{ true is integer }}|{{ 1.5 is float }}|{{ d is mapping }}|{{ l is iterable }}|{{ l is sequence }}|{{ d is sequence }}|{{ 1 is iterable }}|{{ none is none }}|{{ zz is none }}|{{ zz is undefined }}|{{ d.items() is sequence }}|{{ zz is sequence }}|{{ n is mapping }}
{{ 3 is odd }}|{{ 4 is even }}|{{ 9 is divisibleby 3 }}|{{ 9 is divisibleby(2) }}|{{ 1 is in [1, 2] }}|{{ 1 is eq 1 }}|{{ 2 is gt(1) }}|{{ true is true }}|{{ 1 is true }}|{{ false is false }}|{{ 0 is boolean }}|{{ 'A' is upper }}|{{ 'a1' is lower }}|{{ none is sameas none }}|{{ not 1 is string }}|{{ 1 is not string and 2 is number }}|{{ raise_exception is callable }}
{{ zz }}|{{ none }}|{{ true }}|{{ [zz] }}|{{ 1.0 }}|{{ ['it\\'s', "q\\"", 'b\\\\', '\\n', '\u00e9', '\\x01'] }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{{ loop.depth }};{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{% for c in 'h\u00e9' %}{{ c }}-{% endfor %}|{% for x in zz %}x{% else %}none{% endfor %}|{% for x in [] %}{% else %}e{% endfor %}
{% for i in l if i > 1 %}{{ i }}{{ loop.index }}{{ loop.last }}{% endfor %}|{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}|{% for i in range(4, 0, -2) %}{{ i }}{% endfor %}|{{ range(3) | list }}
{% for i in l %}{% for j in [1, 2] %}{{ loop.depth }}{{ i }}{{ j }}{{ loop.last }}{% endfor %}{{ loop.index }}{% endfor %}
{% set x = 1 %}{% for i in l %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}|{% if true %}{% set x = 9 %}{% endif %}{{ x }}|{% for i in l %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set c %} block {{ a }} {% endset %}[{{ c }}]|{% set c | trim | upper %} up {% endset %}[{{ c }}]|{% filter upper %}abc{{ a }}{% endfilter %}|{% with q = 5, r = 6 %}{{ q }}{{ r }}{% endwith %}{{ q is defined }}
{% macro m(a, b=2, c=none) %}{{ a }}{{ b }}{{ c }}{{ d is defined }}{% endmacro %}{{ m(1) }}|{{ m(1, c=3) }}|{{ m(a=4, b=5) }}|{{ m() }}|{% macro w() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ w(1, 2, k=3) }}
{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}|{% macro box() %}[{{ caller(7) }}]{% endmacro %}{% call(v) box() %}in{{ v }}{% endcall %}|{% macro g() %}{{ late }}{% endmacro %}{% set late = 'L' %}{{ g() }}
{{ '<b>' | safe + '<i>' }}|{{ 'a&b' | e }}|{{ '<' | escape ~ '<' }}|{{ ('<' | safe) | string + '<' }}|{{ '<' + ('>' | safe) }}|{{ ('<a>' | safe) | tojson }}
{{ ' a\\nb' | indent }}|{{ 'a\\n\\nb' | indent(2, true) }}|{{ 'a\\n\\nb\\n' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('--') }}
{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d %A') }}|{{ dict(a=1, b=2) }}|{{ dict([('x', 1)]) }}|{{ namespace(a=1).a }}|{{ d | items | list }}|{{ d.items() | list | length }}
{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}|{% set g = l | map('string') %}{{ g | list }}{{ g | list }}|{{ (l | select('odd')) is iterable }}|{{ 'y' if (l | select('gt', 9)) else 'n' }}
{{- ' a ' -}}   b   {{- 'c' }}   
  {% if true %}  indented
  {% endif %}   after
 {# comment #} text {#- c -#}  x
{% raw %}{{ not }} {% here %}{% endraw %}|{%- raw -%}  {{ x }}  {%- endraw -%}  y
  {%+ if true %}kept{% endif +%}
line
{{ 'tab\\there' }}|{{ 'q\\'q' }}|{{ "d\\"d" }}|{{ 'u\\u00e9\\x41' }}|{{ 'k\\qept' }}|{{ 'a' 'b' }}|{{ 1_000 }}|{{ {'a': {'b': 1}}.a.b }}|{{ [[1, 2], [3]][0][1] }}|{{ l.0 }}
{{ zz.a }}
{{ none.a }}
{{ none + 'a' }}
{{ 'a' + 1 }}
{{ 'a' + none }}
{{ d.a.b.c }}
{{ l.append(1) }}
{{ d.pop('a') }}
{{ d.update({}) }}
{{ n.zz }}|{{ n.zz is defined }}
{% set d.a = 1 %}
{{ l | tojsonn }}
{{ 1 is strange }}
{{ 1 / 0 }}
{{ 'a' < 1 }}
{{ 1 | length }}
{{ none | length }}
{% for x in none %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{{ zz() }}
{{ 'abc'.nope() }}
{{ raise_exception('own words') }}
{{ {'a': zz} | tojson }}
{{ d.items() | tojson }}
{{ (l | map('string')) | length }}
{{ (l | map('string')) | tojson }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ [1, 'a'] | sort }}
{{ 'x'.join([1]) }}
{{ 'abc'.index('z') }}
{{ ''.split('') }}
""".strip("\n").split("\n")
# White space at the edges of tags: these stretch over several lines.
EXPRESSIONS += [
    "  {% if true %}\n    a\n  {% else %}\n    b\n  {% endif %}\n",
    "{{ 'x' }}\n\n{% for i in [1, 2] %}\n  {{ i }}\n\n{% endfor %}\n\nend\n\n",
    "a\r\n  {%- if true -%}\r\n  b  {%- endif %}\r\nc\r\n",
    "{# one #}\n  {# two #}\n\t{#- three -#}\n\n x",
    "   {{ 1 }}\n   {%- set x = 1 -%}   \n  {{- x }}  \n",
    "{% set x %}\n  in\n{% endset %}\n[{{ x }}]",
    "{%- macro m(x) -%}\n  {{ x }}\n{%- endmacro %}\n{{ m('a') }}\n{{- m('b') }}",
    "{% raw %}\n {{ a }}\n{% endraw %}\nb",
]
